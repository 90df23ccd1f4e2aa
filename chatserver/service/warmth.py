"""The web role's questions about the KV cache: what is warm, and: a turn is about to come."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict

from chatserver.domain.ids import shard_of
from chatserver.errors import NotFound
from chatserver.ports.caches import CacheReport, Caches, Look, Warm
from chatserver.ports.conversations import Conversations
from chatserver.ports.registry import EngineState, Registry

PATIENCE = 2.0
"""Seconds for which an engine's answer is waited for."""
LOOK_AGAIN = 0.01
TYPING_INTERVAL = 3.0
"""Seconds in which the engines hear once of a conversation, however much is typed."""
MAX_RECENT = 4096


class Warmth:
    """Speaks to the engines about one web process's conversations."""

    def __init__(self, conversations: Conversations, caches: Caches, registry: Registry) -> None:
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
        ready = [e for e in await self._registry.engines() if e.state is EngineState.READY]
        if not ready:
            return []
        look = Look(tenant, conversation_id, secrets.token_hex(16))
        await self._caches.look(look)
        deadline = time.monotonic() + PATIENCE
        while True:
            found = await self._caches.answers(look)
            if len(found) >= len(ready) or time.monotonic() > deadline:
                return found
            await asyncio.sleep(LOOK_AGAIN)

    async def _check(self, tenant: str, conversation_id: str) -> None:
        if shard_of(conversation_id, "conv") is None:
            raise NotFound(f"No conversation with id {conversation_id[:80]!r}.", param="conversation_id")
        await self._conversations.get(tenant, conversation_id)
