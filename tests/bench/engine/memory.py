"""What a process and its children hold."""

from __future__ import annotations

import psutil


def held(pid: int) -> float:
    """Return MB of a process and all below it, shared pages divided among their holders."""
    process = psutil.Process(pid)
    family = (process, *process.children(recursive=True))
    return sum(member.memory_full_info().pss for member in family) / 2**20
