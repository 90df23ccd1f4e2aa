"""Documents that cannot drift: the README is held against the tree, the settings, the errors and the Makefile."""

import re

from chatserver import errors, settings
from tests.deploy import readme_table

TEXT = readme_table.README.read_text()


def test_the_table_of_files_is_the_tree():
    """Every module has its line, with the first sentence of its docstring."""
    assert written_rows() == readme_table.rows(), "run: python -m tests.deploy.readme_table"


def written_rows() -> list[str]:
    part = TEXT.split(readme_table.BEGIN)[1].split(readme_table.END)[0]
    return [line for line in part.splitlines() if line.startswith("|")]


def test_every_decision_has_a_number_of_its_own():
    """File name and title say the same number, and no two pages share one."""
    pages = sorted((readme_table.ROOT / "chatserver/decisions").glob("*.md"))
    numbers = [int(page.name[:4]) for page in pages]
    assert numbers == [int(re.match(r"# (\d+)\. ", page.read_text())[1]) for page in pages]
    assert len(set(numbers)) == len(numbers)


def test_every_setting_is_told():
    """The README's table of settings names each variable and its default, and no other."""
    told = set(re.findall(r"^\| `((?:CHATSERVER|SCRIPTED)_[A-Z_]+)` \|", TEXT, re.MULTILINE))
    hidden = {"CHATSERVER_ENGINE_ID", "CHATSERVER_LISTEN_FD"}  # for the supervisor's use
    assert told == {option.variable for option in settings.options()} - hidden


def test_every_error_is_told():
    """The README's table of errors names each status and code of the error tree."""
    told = set(re.findall(r"^\| (\d{3}) \| `([a-z_]+)` \|", TEXT, re.MULTILINE))
    assert told == {(str(kind.status), kind.code) for kind in _kinds() if kind is not errors.StartupError}


def _kinds() -> set[type[errors.ChatServerError]]:
    found, todo = set(), [errors.ChatServerError]
    while todo:
        kind = todo.pop()
        todo.extend(kind.__subclasses__())
        found.add(kind)
    return found


def test_every_make_target_is_real():
    """The targets that the README names exist."""
    makefile = (readme_table.ROOT / "Makefile").read_text()
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", TEXT, re.MULTILINE))
    assert {"serve", "test"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
