"""The running program's processes: begun side by side, the schedulers forked."""

from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.sglang]


def shared(pid: int) -> int:
    """Return the bytes that a process wrote, or its parent did, and that both have in common."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Shared_Dirty")) * 1024


def test_the_engine_imports_while_the_store_starts(real):
    """The engine's first phase is told before the store is ready."""
    printed = real.log.read_text()
    assert printed.index("engine: importing SGLang") < printed.index("store ready")
    times = {role: psutil.Process(real.pid(role)).create_time() for role in ("store", "engine", "web")}
    assert times["store"] <= times["engine"] <= times["web"]


def test_the_scheduler_is_a_fork_of_the_engine(real):
    """It shares what was imported: as much as SGLang's import takes. A spawned process shares nothing it wrote."""
    (scheduler,) = real.schedulers()
    assert scheduler.ppid() == real.pid("engine")
    assert shared(scheduler.pid) > 150 * 2**20
