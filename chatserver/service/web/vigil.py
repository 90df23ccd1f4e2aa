"""Open connections end when their API key does: revoked, or expired.

One look at each key that has any, whatever their number. Static keys end with their process, so nobody looks at them.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from chatserver.errors import ChatServerError, Unauthenticated
from chatserver.service.web.rounds import rounds

log = logging.getLogger(__name__)

INTERVAL = 2.0
"""Seconds between two looks: how long a connection may outlive its key."""

End = Callable[[ChatServerError], None]


class Vigil:
    """Looks until cancelled. `valid` raises Unauthenticated for a key that has ended, else what hides that."""

    def __init__(self, valid: Callable[[str], Awaitable[None]]) -> None:
        self._valid = valid
        self._open: dict[str, set[End]] = {}

    def join(self, key_id: str, end: End) -> Callable[[], None]:
        """Have `end` called with the reason once the key has ended; return what leaves. `end` must not block."""
        connections = self._open.setdefault(key_id, set())
        connections.add(end)

        def leave() -> None:
            connections.discard(end)
            if not connections and self._open.get(key_id) is connections:
                del self._open[key_id]

        return leave

    async def run(self) -> None:
        """Look at all keys, again and again."""
        await rounds(self._look_at_all, INTERVAL, "the vigil over keys")

    async def _look_at_all(self) -> None:
        for key_id in list(self._open):
            await self._look(key_id)

    async def _look(self, key_id: str) -> None:
        try:
            await self._valid(key_id)
        except Unauthenticated as error:
            for end in list(self._open.get(key_id, ())):
                end(error)
        except ChatServerError as error:
            log.debug("the key %s could not be checked: %s", key_id, error.message)  # the next look is soon
