"""Tells readers of queued answers how many jobs are before theirs, once a second."""

from __future__ import annotations

import logging

from chatserver.errors import Unavailable
from chatserver.ports.turns import Turns
from chatserver.service.web.hub import Hub
from chatserver.service.web.rounds import rounds

log = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between looks at the queues."""
MAX_ASKED = 1000
"""Answers that are asked about at once; readers of others wait without knowing their place."""


class QueuePlaces:
    """Looks at the queues for all waiting readers of this process: two round trips a second at most."""

    def __init__(self, turns: Turns, hub: Hub) -> None:
        self._turns = turns
        self._hub = hub

    async def run(self) -> None:
        """Look until cancelled. A store that does not answer only delays the news."""
        await rounds(self._look, INTERVAL, "the look at the queues")

    async def _look(self) -> None:
        asked = self._hub.queued(MAX_ASKED)
        if not asked:
            return
        try:
            places = await self._turns.ahead(asked)
        except Unavailable as error:
            log.debug("cannot look at the queues: %s", error.message)
            return
        for response_id, ahead in zip(asked, places, strict=True):
            if ahead is not None:
                self._hub.tell(response_id, ahead)
