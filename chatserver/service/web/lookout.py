"""Engines that are gone: their answers are put back at once, also where no supervisor sees them die.

    engine ── listens to commands ──> store     when its process dies, its kernel closes the connection
    web ────────── who listens? ────> store     an engine that listened and does not any more: its answers are put back

What this cannot see (a process that stands still, a machine without power) ends with the leases (`Turns.reap`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from chatserver.errors import ChatServerError
from chatserver.ports.registry import Registry
from chatserver.ports.tapes import Signals
from chatserver.ports.turns import Turns
from chatserver.service.web.rounds import rounds

log = logging.getLogger(__name__)

INTERVAL = 0.4
"""Seconds between two looks."""
GRACE = 1.0
"""Seconds for which an engine may be silent that has only lost its connection: it listens again after half of them."""


class Lookout:
    """Looks for all web processes alike: whoever comes second finds it done."""

    def __init__(
        self,
        registry: Registry,
        signals: Signals,
        turns: Turns,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._signals = signals
        self._turns = turns
        self._clock = clock
        self._heard: set[str] = set()
        self._silent: dict[str, float] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        await rounds(self.look, INTERVAL, "the lookout for engines")

    async def look(self) -> None:
        """Put back what engines held that stopped listening GRACE seconds ago."""
        try:
            await self._look()
        except ChatServerError as error:
            self._silent.clear()  # whoever cannot ask has seen nobody go
            log.debug("cannot see which engines listen: %s", error.message)

    async def _look(self) -> None:
        """Judge each engine once, until it is heard again: one that lives and cannot be heard must not lose its
        answers again and again.
        """
        engines = {report.engine_id for report in await self._registry.engines()}
        listening = await self._signals.listening(sorted(engines)) if engines else frozenset[str]()
        now = self._clock()
        self._heard = (self._heard & engines) | listening
        self._silent = {one: self._silent.get(one, now) for one in self._heard - listening}
        for engine_id in [one for one, since in self._silent.items() if now - since >= GRACE]:
            put_back = await self._turns.release(engine_id)
            await self._registry.drop(engine_id)
            self._heard.discard(engine_id)
            if put_back:
                log.warning("the engine %s is gone; %d answers wait for another one", engine_id, put_back)
