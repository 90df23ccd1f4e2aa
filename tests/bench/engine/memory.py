"""What a process and its children hold."""

from __future__ import annotations

import psutil


def held(pid: int, private: bool = False) -> float:
    """Return MB of a process and all below it: shared pages divided among their holders, or left out if `private`."""
    process = psutil.Process(pid)
    family = (process, *process.children(recursive=True))
    found = [member.memory_full_info() for member in family]
    return sum(info.uss if private else info.pss for info in found) / 2**20
