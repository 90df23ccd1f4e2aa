"""The installer, up to the point where it would download."""

import fcntl
import os
import sys
import time
import venv
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "chatserver" / "deploy"
sys.path.insert(0, str(DEPLOY))  # it is run by path, before anything is installed

import install  # noqa: E402
import run_pip  # noqa: E402


@pytest.fixture
def clone(tmp_path):
    """A clone with lock files, not installed."""
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    deploy = tmp_path / "deploy"
    deploy.mkdir()
    for lock in ("cpu.lock", "dev.lock"):
        (deploy / lock).write_text("torch==1.0\n")
    return tmp_path


@pytest.fixture
def pips(monkeypatch):
    """Every run of pip, in place of running it."""
    runs: list[tuple[str, ...]] = []
    monkeypatch.setattr(run_pip.Pip, "is_cuda_build", lambda self, pin: False)

    def install_(self, what, *arguments):
        runs.append((what, *arguments))
        binary = Path(self._command[0]).parent / "chatserver"
        binary.touch()

    monkeypatch.setattr(run_pip.Pip, "install", install_)
    monkeypatch.setitem(install.SPACE, "cpu.lock", 0)
    # bringing pip into an environment takes seconds, and nothing here runs it
    monkeypatch.setattr(install.Environment, "_make", lambda self: venv.create(self.path))
    monkeypatch.setattr(install.Environment, "_runs", lambda self: self.python.exists())
    return runs


def environment(clone, *locks):
    return install.Environment(clone, list(locks or ("cpu.lock",)), clone / "deploy")


def test_second_run_does_nothing(clone, pips):
    """What is installed already is seen from the stamps."""
    assert not environment(clone).is_current()
    environment(clone).install()
    assert [run[0] for run in pips] == ["the server's packages", "the server itself"]
    assert environment(clone).is_current()
    assert not environment(clone, "cpu.lock", "dev.lock").is_current()


def test_second_run_is_fast(clone, pips):
    """`make serve` does not wait for it: no pip, no other process, a few file reads."""
    environment(clone).install()
    started = time.process_time()
    assert environment(clone).is_current()
    assert time.process_time() - started < 0.1


@pytest.mark.parametrize("change", ["deploy/cpu.lock", "pyproject.toml", ".venv/pyvenv.cfg"])
def test_any_change_installs_again(clone, pips, change):
    """Other pins, other entry points, another interpreter."""
    environment(clone).install()
    with (clone / change).open("a") as file:
        file.write("x = 1\n")
    assert not environment(clone).is_current()


def test_interrupted_run_is_taken_up(clone, pips, monkeypatch):
    """No stamp before the end; packages that pip had not finished are installed again."""
    environment(clone).install()
    packages = next(clone.glob(".venv/lib/python*/site-packages"))
    (packages / "half-1.0.dist-info").mkdir()
    (packages / "whole-1.0.dist-info").mkdir()
    (packages / "whole-1.0.dist-info" / "INSTALLER").write_text("pip\n")
    (clone / "deploy" / "cpu.lock").write_text("torch==2.0\n")

    def interrupted(self, *_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_pip.Pip, "install", interrupted)
    with pytest.raises(KeyboardInterrupt):
        environment(clone).install()
    assert not environment(clone).is_current()
    assert not (packages / "half-1.0.dist-info").exists()
    assert (packages / "whole-1.0.dist-info").exists()


def test_dangling_link_is_replaced(clone, pips):
    """A link to an environment that is gone."""
    (clone / ".venv").symlink_to(clone / "gone")
    environment(clone).install()
    assert environment(clone).is_current()
    assert not (clone / ".venv").is_symlink()


def test_half_made_environment_is_replaced(clone, pips):
    """An interrupted `python -m venv`."""
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / ".venv" / "bin" / "python").symlink_to("/nonexistent/python3")
    environment(clone).install()
    assert environment(clone).is_current()


def test_foreign_folder_is_left_alone(clone, pips):
    """What is no environment is not removed."""
    (clone / ".venv").mkdir()
    (clone / ".venv" / "thesis.tex").write_text("years of work")
    with pytest.raises(run_pip.SetupError, match="not a virtual environment; move it away"):
        environment(clone).install()
    assert (clone / ".venv" / "thesis.tex").exists()


def test_full_disk_is_found_first(clone, pips, monkeypatch):
    """Before gigabytes are downloaded."""
    monkeypatch.setitem(install.SPACE, "cpu.lock", 10**9)
    with pytest.raises(run_pip.SetupError, match=r"needs \d+ GiB of free disk space in .*, found"):
        environment(clone).install()
    assert not (clone / ".venv").exists()


def test_cuda_build_is_announced(clone, pips, monkeypatch, capsys):
    """Said before it is downloaded, with the setting that avoids it; then its own needs are installed."""
    monkeypatch.setattr(run_pip.Pip, "is_cuda_build", lambda self, pin: True)
    environment(clone).install()
    assert "PIP_EXTRA_INDEX_URL" in capsys.readouterr().out
    assert pips[0][1:] == ("torch==1.0", "-c", str(clone / "deploy" / "cpu.lock"))


def test_old_python_is_one_line(monkeypatch):
    """With what is needed and what to do."""
    monkeypatch.setattr(install.shutil, "which", lambda name: None)
    with pytest.raises(run_pip.SetupError, match=r"needs Python 3\.11 to 3\.13, got 3\.9; install one"):
        install.use_supported_python((3, 9))


def test_another_python_is_found(monkeypatch):
    """An unfit python3 becomes a fit one from PATH."""
    became = []
    monkeypatch.setattr(
        install.shutil, "which", lambda name: f"/bin/{name}" if name == "python3.12" else None
    )
    monkeypatch.setattr(install.os, "execv", lambda path, _: became.append(path) or sys.exit(0))
    with pytest.raises(SystemExit):
        install.use_supported_python((3, 14))
    assert became == ["/bin/python3.12"]


def test_two_setups_take_turns(tmp_path):
    """`make serve` and `make test` started together must not both write `.venv`."""
    with install.alone(tmp_path):
        other = os.open(tmp_path, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(other)


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("ERROR: OSError: [Errno 28] No space left on device", "the disk is full"),
        (
            "WARNING: Retrying … Failed to establish a new connection\nERROR: No matching distribution",
            "the network",
        ),
        ("ERROR: No matching distribution found for torch==1.0", "no wheel for this machine"),
        ("ERROR: something new", "something new"),
    ],
)
def test_failure_of_pip_comes_with_advice(tmp_path, said, advice):
    """The end of pip's log, what to do about it, and where all of it is."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\nexit 1\n")
    python.chmod(0o755)
    pip = run_pip.Pip(python, log=tmp_path / "install.log", scratch=tmp_path / "tmp")
    with pytest.raises(run_pip.SetupError) as error:
        pip.install("everything")
    assert advice in str(error.value)
    assert str(tmp_path / "install.log") in str(error.value)
