"""A store that is away is asked again until it answers: a restart of it costs an answer no more than the restart."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from chatserver.errors import Unavailable

log = logging.getLogger(__name__)

DELAYS = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds between tries; the last one repeats."""
GIVE_UP = 60.0
"""Seconds after which whoever asks gives up."""

T = TypeVar("T")


async def insist(ask: Callable[[], Awaitable[T]], *, waits: str, give_up: float = GIVE_UP) -> T:
    """Await `ask()` until it does not raise Unavailable; `waits`: what waits for it, as the log tells.

    What is asked must be safe to ask twice: an answer may have been lost. Raises Unavailable after `give_up` seconds.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + give_up
    for delay in itertools.chain(DELAYS, itertools.repeat(DELAYS[-1])):
        try:
            return await ask()
        except Unavailable as error:
            if loop.time() > deadline:
                raise
            log.warning("the store is away, %s waits (%s)", waits, error.message)
            await asyncio.sleep(delay)
    raise AssertionError("the delays never end")
