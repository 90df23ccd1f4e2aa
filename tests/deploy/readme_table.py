"""The README's table of files, made from the first line of each file's docstring.

`python -m tests.deploy.readme_table` writes it; `test_docs.py` fails when it is not what it should be.
"""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
BEGIN, END = "<!-- files: made by `python -m tests.deploy.readme_table` -->", "<!-- end of files -->"
FOLDERS = {
    "chatserver/adapters/valkey/lua/": "The store's atomic steps, one script a file, with keys, arguments, guarantee",
    "chatserver/decisions/": "Why things are as they are, one page each",
    "web/": "The page: plain ES modules, served as they are; `web/vendor/README.md` names what is not ours",
    "tests/": "Mirror the packages; `tests/e2e` starts the whole program, `tests/bench` measures",
}
"""Folders that take one line in the table."""


def rows() -> list[str]:
    """Return the table's lines, in the order of the tree."""
    listed = [f"| `{folder}` | {text} |" for folder, text in FOLDERS.items()]
    modules = [
        path for path in _tracked() if path.startswith(("chatserver/", "engine/")) and path.endswith(".py")
    ]
    listed += [
        f"| `{path}` | {line} |"
        for path in modules
        if (ROOT / path).is_file() and (line := _first_line(ROOT / path))
    ]
    return ["| file | what it is |", "| --- | --- |", *sorted(listed)]


def written() -> str:
    """Return the README with the table as it should be."""
    text = README.read_text()
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    return text[:start] + "\n\n" + "\n".join(rows()) + "\n\n" + text[end:]


def _tracked() -> list[str]:
    listing = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    )
    return listing.stdout.splitlines()


def _first_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return re.sub(r"\s+", " ", docstring.split("\n\n")[0]).strip().rstrip(".:").replace("|", "\\|")


if __name__ == "__main__":
    README.write_text(written())
