"""How patient a client is, and how it waits."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

FIRST_WAIT = 0.25
"""Seconds: the most that is waited before the first retry."""
LONGEST_WAIT = 15.0


@dataclass(frozen=True, slots=True)
class Options:
    """Durations in seconds.

    `concurrency`: answers that one client reads at once; further ones wait for their turn.
    `patience`: how long the server may be away, or busy, before an answer or a call fails.
    `connect_timeout`: for one attempt to reach it. `silence`: a stream that brings nothing for so long is dead; the
    server says something at least every 10 s. `call_timeout`: for the answer to a call that is no stream.
    """

    concurrency: int = 16
    patience: float = 120.0
    connect_timeout: float = 10.0
    silence: float = 25.0
    call_timeout: float = 30.0

    def __post_init__(self) -> None:
        """Raises ValueError, which names the option."""
        if not 1 <= self.concurrency <= 10_000:
            raise ValueError(f"concurrency: expected 1 to 10000, got {self.concurrency}")
        for name in ("patience", "connect_timeout", "silence", "call_timeout"):
            if not 0 < getattr(self, name) <= 86_400:
                raise ValueError(
                    f"{name}: expected seconds above 0 and up to 86400, got {getattr(self, name)}"
                )


def pause_before(attempt: int, draw: Callable[[], float] = random.random) -> float:
    """Return how long to wait before retry `attempt` (0: the first), in seconds: full jitter.

    Uniform from 0 to a bound that doubles, so that clients that were cut off together do not come back together.
    `draw` returns a number in [0, 1).
    """
    return draw() * min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(attempt, 16))
