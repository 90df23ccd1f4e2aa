"""How long this process waits for a store that does not answer, and how often it asks."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from chatserver.errors import Unavailable

PATIENCE = 30.0
"""Seconds for which a reader waits for a store that does not answer."""
BACK_OFF = (0.05, 2.0)
"""First and longest pause between attempts to reach the store, in seconds."""

T = TypeVar("T")


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Await `ask()`, for PATIENCE seconds again while the store does not answer. Raises Unavailable."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    pauses = pause_lengths()
    while True:
        with contextlib.suppress(Unavailable):
            return await ask()
        if loop.time() >= deadline:
            raise Unavailable(
                f"The store has not answered for {PATIENCE:g} s: come back and resume.", retry_after=2.0
            )
        await asyncio.sleep(next(pauses))


def pause_lengths() -> Iterator[float]:
    """Yield growing pauses with jitter, so that processes do not come back in step."""
    low, high = BACK_OFF
    while True:
        yield low * (0.5 + random.random())
        low = min(low * 2, high)
