"""The repository itself: what lies where, and what no file may say."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from chatserver import __main__ as cli

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "chatserver" / "deploy"
TOP = {
    "pyproject.toml", "README.md", "Procfile", "Makefile", "LICENSE", "CHANGELOG.md",
    "chatserver", "engine", "web", "tests",
}  # fmt: skip

# put together here, so that this file does not hold what it looks for
INDEXES = [
    ".".join(parts) for parts in (("pypi", "org"), ("files", "pythonhosted"), ("download", "pytorch"))
] + [".".join(parts) for parts in (("registry", "npmjs"), ("registry", "yarnpkg"), ("deb", "debian"))]
MACHINE_PATH = re.compile(r"(?<![\w.$~{}<>*-])/(?:home|root|work|opt|mnt)/\w")


def tracked() -> list[Path]:
    """Return every file of the repository; a source distribution has no git to ask."""
    listed = subprocess.run(["git", "ls-files", "-z"], check=False, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def ours(path: Path) -> bool:
    """Say whether we wrote a file, as opposed to vendored ones."""
    return "vendor" not in path.parts and path.suffix not in (".png", ".woff2", ".ico", ".gguf")


def test_top_level_holds_what_it_should():
    """Nothing is dropped beside the packages; dot-files may lie there."""
    names = {path.relative_to(ROOT).parts[0] for path in tracked()}
    assert {name for name in names if not name.startswith(".")} <= TOP


@pytest.mark.parametrize("what", ["package index", "machine"])
def test_no_file_names_a(what):
    """Where packages come from is configured on each machine, and paths of one mean nothing on another."""
    found = []
    for path in filter(ours, tracked()):
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if (
                any(index in line for index in INDEXES)
                if what == "package index"
                else MACHINE_PATH.search(line)
            ):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found


@pytest.mark.parametrize("name", ["cpu.lock", "dev.lock", "gpu.lock"])
def test_lock_files_are_pinned_and_sorted(name):
    """One exact version a line, so that what was tested is what is installed."""
    pins = [line for line in (DEPLOY / name).read_text().splitlines() if not line.startswith("#")]
    assert pins
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*==[0-9][a-z0-9.]*", pin) for pin in pins)
    names = [pin.partition("==")[0] for pin in pins]
    assert names == sorted(set(names))


def test_everything_that_the_server_needs_is_locked():
    """pyproject's dependencies are all in both runtime locks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split("[>=]", dependency)[0] for dependency in project["dependencies"]}
    assert "sglang" in needed
    for lock in ("cpu.lock", "gpu.lock"):
        assert needed <= set(re.findall(r"^([a-z0-9-]+)==", (DEPLOY / lock).read_text(), re.M))


def test_procfile_runs_the_roles():
    """Every line is a command that the command line has; together they are what `serve` supervises."""
    commands = re.findall(r"^(\w+): .*\bchatserver (\w+)\b", (ROOT / "Procfile").read_text(), re.M)
    assert {role for role, _ in commands} == {"web", "engine", "store"}
    assert all(role == command and command in cli.COMMANDS for role, command in commands)


def test_make_alone_lists_the_targets():
    """A person who types `make` is told what there is, and nothing is started."""
    listed = subprocess.run(
        ["make", "-C", str(ROOT)], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    for target in ("serve", "test", "lint", "bench", "setup", "clean"):
        assert f"make {target}" in listed


def test_make_hands_settings_over():
    """PORT=… on make's command line is CHATSERVER_PORT for the server; a HOST that some shells export is not."""
    given = {"PORT": "81", "DATA_DIR": "d", "MODEL": "m", "CONTEXT": "512", "REDIS_URL": "r"}
    arguments = ["--eval=show: ; @env", "show", *(f"{name}={value}" for name, value in given.items())]
    environ = {"PATH": os.environ["PATH"], "HOST": "my-machine"}
    command = ["make", "-C", str(ROOT), *arguments]
    shown = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=environ, check=True
    ).stdout
    assert dict(re.findall(r"^CHATSERVER_(\w+)=(.*)$", shown, re.M)) == given


def test_continuous_integration_runs_the_tests():
    """It runs what a person runs."""
    script = (ROOT / ".ci" / "run").read_text()
    assert "exec make test" in script
    assert subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=False).returncode == 0
