"""What a web process looks at again and again, whatever one look comes to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

LONGEST = 60.0
"""Longest pause behind looks that failed, in seconds."""


async def rounds(look: Callable[[], Awaitable[None]], every: float, what: str) -> None:
    """Call `look` every so many seconds, until cancelled. `what` it is, as the log tells.

    A store that is away is `look`'s own matter. Anything else that it raises is a mistake of ours: it is logged, and
    must not end the looks of this process in silence; they come half as often each time, until one succeeds.
    """
    pause = every
    while True:
        try:
            await look()
            pause = every
        except Exception:
            pause = max(every, min(2 * pause, LONGEST))
            log.exception("%s failed; the next look is in %g s", what, pause)
        await asyncio.sleep(pause)
