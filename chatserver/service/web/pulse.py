"""How this web process fares: who reads here, what it takes of the machine, how late its event loop is."""

from __future__ import annotations

import asyncio
import os
import time
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

from chatserver.service.web.hub import Hub

INTERVAL = 0.25
"""Seconds between two looks at the event loop."""
LAG_BOUNDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Upper bounds of the classes in which delays are counted, in seconds; the last class has none."""
_STATM = Path("/proc/self/statm")


@dataclass(frozen=True, slots=True)
class Vitals:
    """What one web process is like at this moment, and since it started.

    `readers`: of answers, at whatever door. `resident`: bytes of memory, None where the system does not say. `cpu`:
    seconds. `lag`: how many looks came late by each of LAG_BOUNDS and not the one before; `lag_seconds`: their sum.
    """

    web_id: str
    readers: int
    resident: int | None
    cpu: float
    lag: tuple[int, ...]
    lag_seconds: float


class Pulse:
    """Looks again and again whether the event loop is on time: whoever waits for it waits as long."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._lag = [0] * (len(LAG_BOUNDS) + 1)
        self._lag_seconds = 0.0

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            due = time.monotonic() + INTERVAL  # not the loop's own time: that stands still for a turn of it
            await asyncio.sleep(INTERVAL)
            late = max(0.0, time.monotonic() - due)
            self._lag[bisect_left(LAG_BOUNDS, late)] += 1
            self._lag_seconds += late

    def vitals(self) -> Vitals:
        """Return how things stand."""
        return Vitals(
            self._hub.web_id,
            self._hub.following,
            _resident(),
            time.process_time(),
            tuple(self._lag),
            self._lag_seconds,
        )


def _resident() -> int | None:
    """Return the memory of this process, in bytes; proc(5): the second number is its pages."""
    try:
        pages = int(_STATM.read_bytes().split()[1])
    except OSError:  # no Linux
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
