"""What one process cost: CPU and memory from the kernel's accounts."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of all threads of a process, to the nanosecond."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def pin(pid: int, core: int, *, children: bool, niceness: int) -> None:
    """Keep a process, its threads and perhaps its children on one core, at a priority."""
    process = psutil.Process(pid)
    for one in (process, *(process.children(recursive=True) if children else ())):
        for thread in one.threads():
            with suppress(ProcessLookupError):  # one of a pool's threads, which has ended since
                os.sched_setaffinity(thread.id, {core})
                os.setpriority(os.PRIO_PROCESS, thread.id, niceness)
        if niceness:
            _raise_session(one.pid, niceness)


def _raise_session(pid: int, niceness: int) -> None:
    """With autogroup scheduling a process's niceness only counts within its own session: set the session's."""
    autogroup = Path(f"/proc/{pid}/autogroup")
    if autogroup.exists():
        autogroup.write_text(str(niceness))


def memory(pid: int) -> int:
    """Return the bytes that a process has for itself alone."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Pss in smaps_rollup")


def busy(core: int) -> float:
    """Return the seconds for which a core has been busy since the machine started."""
    times = psutil.cpu_times(percpu=True)[core]
    return times.user + times.system + times.nice + times.irq + times.softirq + times.steal
