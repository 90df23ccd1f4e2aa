"""The web role's questions about the KV cache: what is warm, and: a turn is about to come."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeVar

from chatserver.domain.ids import shard_of
from chatserver.errors import NotFound, Unavailable
from chatserver.ports.caches import CacheReport, Caches, Look, Release, Warm
from chatserver.ports.conversations import Conversations
from chatserver.ports.registry import EngineState, Registry

PATIENCE = 2.0
LOOK_AGAIN = 0.01
TYPING_INTERVAL = 3.0
"""Seconds in which the engines hear once of a conversation, however much is typed."""
MAX_RECENT = 4096

_Answer = TypeVar("_Answer")


class Warmth:
    """Speaks to the engines about one web process's conversations."""

    def __init__(
        self, conversations: Conversations, caches: Caches, registry: Registry, patience: float = PATIENCE
    ) -> None:
        """`patience`: seconds for which an engine's answer is waited for."""
        self.patience = patience
        self._conversations = conversations
        self._caches = caches
        self._registry = registry
        self._recent: OrderedDict[tuple[str, str], float] = OrderedDict()

    async def expect(self, tenant: str, conversation_id: str) -> None:
        """Say that a user opened the conversation or types in it: a turn is likely. Raises NotFound."""
        key, now = (tenant, conversation_id), time.monotonic()
        if now - self._recent.get(key, float("-inf")) < TYPING_INTERVAL:
            return
        await self._check(tenant, conversation_id)
        self._recent[key] = now
        self._recent.move_to_end(key)
        if len(self._recent) > MAX_RECENT:
            self._recent.popitem(last=False)
        await self._caches.warm(Warm(tenant, conversation_id))

    async def reports(self, tenant: str, conversation_id: str) -> list[CacheReport]:
        """Return what each engine's cache holds of it; engines that are silent are left out. Raises NotFound."""
        await self._check(tenant, conversation_id)
        if not (engines := await self._ready()):
            return []
        look = Look(tenant, conversation_id, secrets.token_hex(16))
        await self._caches.look(look)
        return await patiently(lambda: self._caches.answers(look), engines, self.patience)

    async def close(self, tenant: str, conversation_id: str) -> int | None:
        """Have the engines forget a conversation that goes on: see `released`. Raises NotFound."""
        await self._check(tenant, conversation_id)
        return await self.released(tenant, conversation_id, everything=True)

    async def released(self, tenant: str, conversation_id: str, *, everything: bool = False) -> int | None:
        """Have the engines free what only items held that are gone now, or `everything`; return how many tokens.

        None: no engine answered in time, or the store cannot be reached: what is gone is gone, its KV goes by age.
        """
        release = Release(tenant, conversation_id, secrets.token_hex(16), everything)
        try:
            if not (engines := await self._ready()):
                return None
            await self._caches.release(release)
            freed = await patiently(lambda: self._caches.freed(release), engines, self.patience)
        except Unavailable:
            return None
        return sum(freed) if freed else None

    async def _ready(self) -> int:
        """Return how many engines would answer."""
        return sum(engine.state is EngineState.READY for engine in await self._registry.engines())

    async def _check(self, tenant: str, conversation_id: str) -> None:
        if shard_of(conversation_id, "conv") is None:
            raise NotFound(f"No conversation with id {conversation_id[:80]!r}.", param="conversation_id")
        await self._conversations.get(tenant, conversation_id)


async def patiently(
    ask: Callable[[], Awaitable[list[_Answer]]], expected: int, patience: float
) -> list[_Answer]:
    """Return the answers once there are as many as expected, or what there is after `patience` seconds."""
    deadline = time.monotonic() + patience
    while True:
        found = await ask()
        if len(found) >= expected or time.monotonic() > deadline:
            return found
        await asyncio.sleep(LOOK_AGAIN)
