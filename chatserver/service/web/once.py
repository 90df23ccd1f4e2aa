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
            self._doing = asyncio.create_task(self._do())
            self._doing.add_done_callback(_seen)
        await asyncio.shield(self._doing)

    async def _do(self) -> None:
        try:
            await self._work()
        finally:
            self._doing = None


def _seen(doing: asyncio.Task[None]) -> None:
    """Take an error, even if nobody waits any more."""
    if not doing.cancelled():
        doing.exception()
