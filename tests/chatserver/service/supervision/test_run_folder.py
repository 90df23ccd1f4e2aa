"""The data folder of one running server."""

import os
import stat

import pytest

from chatserver.errors import StartupError
from chatserver.service.supervision import run_folder
from chatserver.service.supervision.run_folder import RunFolder


def test_is_created_for_its_owner_only(tmp_path):
    """Conversations and keys of others are nobody's business."""
    with RunFolder(tmp_path / "a" / "data"):
        assert stat.S_IMODE((tmp_path / "a" / "data").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "a" / "data" / "run").stat().st_mode) == 0o700


def test_is_held_by_one_at_a_time(tmp_path):
    """The second is told who the first is; when the first has gone, the folder is free."""
    with (
        RunFolder(tmp_path),
        pytest.raises(StartupError, match=f"in use by process {os.getpid()}; stop that one"),
    ):
        RunFolder(tmp_path)
    with RunFolder(tmp_path):
        pass


def test_unusable_folder_is_one_line(tmp_path):
    """A file where the folder should be, say: the message names it and what to change."""
    (tmp_path / "data").write_text("")
    with pytest.raises(StartupError, match=r"data: cannot be used as data folder \(.*\); choose another"):
        RunFolder(tmp_path / "data")


def test_pid_files_come_and_go(tmp_path):
    """One id a file; what a killed supervisor left is forgotten."""
    with RunFolder(tmp_path) as folder:
        folder.write_pid("web", 4711)
        folder.write_pid("web", 4712)
        assert (tmp_path / "run" / "web.pid").read_text() == "4712\n"
    with RunFolder(tmp_path) as folder:
        assert not (tmp_path / "run" / "web.pid").exists()
        folder.drop_pid("web")


def test_logs_are_bounded(tmp_path, monkeypatch):
    """A role that talks for years fills two files, not the disk."""
    monkeypatch.setattr(run_folder, "LOG_BYTES", 1000)
    with RunFolder(tmp_path) as folder:
        log = folder.log("web")
        for number in range(500):
            log.write(f"line {number}")
        log.close()
    sizes = [path.stat().st_size for path in (tmp_path / "logs").iterdir()]
    assert len(sizes) == 2
    assert max(sizes) < 1100
    assert log.path.read_text().endswith("line 499\n")
