"""Feeds: who wants to know that a conversation has changed, in this process.

    store ──conversation id──> Feeds ──bell──> one subscriber: reads what is true now, and says so

A bell says that something changed, not what: rung twice before it is heard, it is heard once, so a slow subscriber
costs nothing and never misses the last state.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from chatserver.errors import Unavailable
from chatserver.ports.tapes import Signals
from chatserver.service.web.patience import pause_lengths

log = logging.getLogger(__name__)


class Feeds:
    """Rings the bells of a process, once it was started."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._bells: dict[str, set[asyncio.Event]] = {}
        self._listening: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to listen. Returns at once; every bell rings when the subscription stands."""
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen(), name="feeds")

    async def close(self) -> None:
        """Stop listening. Idempotent."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
            self._listening = None

    @contextmanager
    def bell(self, conversation_id: str) -> Iterator[asyncio.Event]:
        """Give an event that is set when the conversation changes, until the block ends; its owner clears it."""
        bell = asyncio.Event()
        self._bells.setdefault(conversation_id, set()).add(bell)
        try:
            yield bell
        finally:
            bells = self._bells[conversation_id]
            bells.discard(bell)
            if not bells:
                del self._bells[conversation_id]

    async def _listen(self) -> None:
        pauses = pause_lengths()
        while True:
            try:
                async for conversation_id in self._signals.changes():
                    if conversation_id is None:
                        pauses = pause_lengths()
                        self._ring_all()  # what changed while nobody listened is in the store
                    else:
                        self._ring(conversation_id)
            except Unavailable as error:
                log.warning("the subscription to changes was lost: %s", error)
            except Exception:
                log.exception("the subscription to changes broke")
            await asyncio.sleep(next(pauses))

    def _ring(self, conversation_id: str) -> None:
        for bell in self._bells.get(conversation_id, ()):
            bell.set()

    def _ring_all(self) -> None:
        for conversation_id in self._bells:
            self._ring(conversation_id)
