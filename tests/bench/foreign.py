"""How much of the machine others used while something was measured."""

from __future__ import annotations

import os
import time

import psutil


class Foreign:
    """From its making on; `share()` may be asked for while the processes that this one started still run."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._busy, self._own = _busy(), _own()

    def share(self) -> float:
        """Return the share (0–1) of all processors that neither we nor the processes that we started used."""
        seconds = (time.monotonic() - self._began) * (os.cpu_count() or 1)
        return max(0.0, (_busy() - self._busy) - (_own() - self._own)) / seconds


def _busy() -> float:
    times = psutil.cpu_times()
    return times.user + times.system + times.nice + times.irq + times.softirq + times.steal


def _own() -> float:
    me = psutil.Process()
    total = 0.0
    for process in (me, *me.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total
