"""A tenant's conversations in order of their last change, over all shards."""

from __future__ import annotations

from collections.abc import Sequence

from chatserver.adapters.valkey import codec, keys
from chatserver.adapters.valkey.client import Client
from chatserver.adapters.valkey.scripts import Command, script
from chatserver.domain.ids import SHARDS
from chatserver.domain.item import Conversation

MAX_PAGE = 1000
"""Bound on `limit`."""

Place = tuple[bytes, bytes]
"""(updated_at, id): where a conversation stands in the index."""


class Listing:
    """Pages of conversations, merged from the index of each shard."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def page(
        self, tenant: str, limit: int, after: str | None, newest_first: bool
    ) -> list[Conversation]:
        """Return up to `limit` (at most MAX_PAGE) that follow `after`. Raises NotFound if that is unknown."""
        limit = min(limit, MAX_PAGE)
        found: list[Conversation] = []
        last = None if after is None else await self._place(tenant, after)
        while len(found) < limit:
            places = await self._places(tenant, limit - len(found), last, newest_first)
            if not places:
                break
            found += await self._fetch(tenant, [conversation_id for _, conversation_id in places])
            last = places[-1]
        return found

    async def _place(self, tenant: str, conversation_id: str) -> Place:
        shard = keys.conversation(conversation_id).shard
        score = await self._client.run(shard, ("ZSCORE", keys.index(shard, tenant), conversation_id))
        if score is None:
            raise keys.no_conversation(conversation_id)
        return score, conversation_id.encode()

    async def _places(self, tenant: str, limit: int, last: Place | None, newest_first: bool) -> list[Place]:
        """Return up to `limit` that follow `last`, over all shards."""
        score, seen = last or (b"", b"")

        def ask(shard: int) -> tuple[int, Command]:
            arguments = (limit, int(newest_first), score, seen)
            return shard, script("list").command((keys.index(shard, tenant),), *arguments)

        pages = await self._client.pipeline([ask(shard) for shard in range(SHARDS)])
        merged = [pair for flat in pages for pair in zip(flat[1::2], flat[::2], strict=True)]
        merged.sort(key=lambda pair: (float(pair[0]), pair[1]), reverse=newest_first)
        return merged[:limit]

    async def _fetch(self, tenant: str, ids: Sequence[bytes]) -> list[Conversation]:
        """Return those that are still there."""
        wanted = [keys.conversation(found.decode()) for found in ids]
        replies = await self._client.pipeline([(key.shard, ("HGETALL", key.fields)) for key in wanted])
        conversations = (decoded(found.decode(), flat) for found, flat in zip(ids, replies, strict=True))
        return [found for found in conversations if found is not None and found.tenant == tenant]


def decoded(conversation_id: str, flat: Sequence[bytes]) -> Conversation | None:
    """Return a conversation; None if it is not there or is being deleted."""
    if b"tenant" not in flat[::2]:
        return None
    return codec.decode_conversation(conversation_id, flat)
