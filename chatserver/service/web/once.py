"""One look for all who ask for the same at once: 200 requests need not read the list of models 200 times."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Once:
    """Does `work` when called; who calls while it is done waits for that one, and gets what it raises."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._work = work
        self._doing: asyncio.Task[None] | None = None

    async def __call__(self) -> None:
        """Return when it is done. A caller may be cancelled: the others still wait."""
        if self._doing is None:
            self._doing = asyncio.create_task(self._work())
            self._doing.add_done_callback(self._done)
        await asyncio.shield(self._doing)

    def _done(self, doing: asyncio.Task[None]) -> None:
        self._doing = None
        if not doing.cancelled():
            doing.exception()  # seen, even if nobody waits any more
