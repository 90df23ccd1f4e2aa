"""Answers that nobody has watched for long: they are stopped, or give way to others.

    a reader leaves ── abandon_after ──> stop       ends as if its user had stopped it; what was written stays
                                    └──> give way   leaves the scheduler while others wait for its place, and goes
                                                    on, from its tape as after a crash, when there is room or a reader

Answers that were begun in the background are never counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from enum import StrEnum

from chatserver.errors import Unavailable
from chatserver.ports.turns import Turns
from chatserver.service.engine.turn import Turn

log = logging.getLogger(__name__)


class Abandoned(StrEnum):
    """What becomes of an answer that nobody watches."""

    STOP = "stop"
    GIVE_WAY = "give_way"


class Watchers:
    """Looks at the running answers of one engine. `after`: seconds without a reader; 0 = for ever."""

    def __init__(self, turns: Turns, after: float, policy: Abandoned) -> None:
        self._turns = turns
        self._after = after
        self._policy = policy

    async def run(self, running: Callable[[], Mapping[str, Turn]], limit: int) -> None:
        """Look until cancelled. `running()`: what runs now; `limit`: places in the scheduler."""
        while self._after:
            await asyncio.sleep(min(self._after / 4, 5.0))
            try:
                await self._look(running(), limit)
            except Unavailable as error:
                log.warning("cannot see who is watched (%s)", error.message)

    async def _look(self, running: Mapping[str, Turn], limit: int) -> None:
        if not running:
            return
        ages = await self._turns.unwatched(list(running))
        full = sum(not turn.waits for turn in running.values()) >= limit
        wanted = await self._turns.waiting() if full else 0
        for (response_id, turn), age in zip(running.items(), ages, strict=True):
            if age is None or age < self._after:
                turn.go_on()
            elif self._policy is Abandoned.STOP:
                log.info("answer %s is stopped: nobody has watched it for %.0f s", response_id, age)
                turn.stop()
            elif wanted > 0 and not turn.waits:
                turn.give_way()
                wanted -= 1
