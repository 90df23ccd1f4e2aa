"""Forked scheduler processes: made after the import, launched or ended, never left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine import ranks
from engine.settings import EngineSettings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="schedulers are forked on Linux only")

_PARENT = """
import gc, json, sys
from pathlib import Path
from engine.ranks import fork
from engine.settings import EngineSettings

forked = fork(EngineSettings(Path("."), "none", tp=2))
print(json.dumps({"pids": forked.pids, "frozen": gc.get_freeze_count(), "collecting": gc.isenabled()}), flush=True)
sys.stdin.readline()
forked.end()
print("ended", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def parent():
    """A process that has forked two ranks, and what it says of them."""
    process = subprocess.Popen(
        [sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    said = json.loads(process.stdout.readline())
    yield process, said
    process.kill()
    process.communicate()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def shared_megabytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Shared_Dirty")) // 1024


def wait_gone(pids) -> None:
    deadline = time.monotonic() + 60
    while any(map(is_alive, pids)):
        assert time.monotonic() < deadline, "a forked process was left behind"
        time.sleep(0.02)


def test_ranks_share_what_was_imported_and_die_with_their_parent(parent):
    """Two waiting ranks hold SGLang's import in common; a parent that is killed takes them along."""
    process, said = parent
    pids = said["pids"]
    assert len(pids) == 2
    assert all(map(is_alive, pids))
    assert said["frozen"] > 100_000
    assert said["collecting"]
    assert min(map(shared_megabytes, pids)) > 150
    os.kill(process.pid, signal.SIGKILL)
    wait_gone(pids)


def test_ranks_that_were_not_launched_can_be_ended(parent):
    """`end` leaves no process, though none was given work."""
    process, said = parent
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "ended\n"
    wait_gone(said["pids"])


def test_schedulers_of_a_gpu_are_not_forked(monkeypatch):
    """A GPU's context does not survive a fork: nothing is imported, nothing forked."""
    monkeypatch.setattr(ranks, "Ranks", None)
    assert ranks.fork(EngineSettings(Path(), "none", device="cuda")) is None
