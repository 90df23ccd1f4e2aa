"""Questions about the KV cache (port `Caches`): published to all engines, answered in a hash that expires."""

from __future__ import annotations

from typing import Any

from chatserver.adapters.valkey import codec, engine_codec, keys, packing
from chatserver.adapters.valkey.client import Client
from chatserver.domain.response import Failure
from chatserver.ports.caches import CacheReport, Count, Counted, Look, Release, Warm

ANSWER_TTL = 10
"""Seconds that answers are kept."""


class ValkeyCaches:
    """See `Caches`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def warm(self, command: Warm) -> None:
        """See `Caches.warm`."""
        await self._publish(command.conversation, packing.pack("warm", command.tenant, command.conversation))

    async def look(self, command: Look) -> None:
        """See `Caches.look`."""
        payload = packing.pack("look", command.tenant, command.conversation, command.ask)
        await self._publish(command.conversation, payload)

    async def release(self, command: Release) -> None:
        """See `Caches.release`."""
        fields = (command.tenant, command.conversation, command.ask, command.everything)
        await self._publish(command.conversation, packing.pack("release", *fields))

    async def released(self, command: Release, engine_id: str, tokens: int) -> None:
        """See `Caches.released`."""
        await self._leave(command, engine_id, str(tokens).encode())

    async def freed(self, command: Release) -> list[int]:
        """See `Caches.freed`."""
        return [int(tokens) for tokens in await self._left(command)]

    async def count(self, command: Count) -> None:
        """See `Caches.count`."""
        fields = (command.engine_id, command.tenant, command.ask, command.conversation, command.leaf)
        payload = packing.pack("count", *fields, command.params)
        await self._client.run(_shard(command), ("PUBLISH", keys.CACHES_CHANNEL, payload))

    async def counted(self, command: Count, answer: Counted) -> None:
        """See `Caches.counted`."""
        await self._leave(command, command.engine_id, packing.pack(answer))

    async def counts(self, command: Count) -> list[Counted]:
        """See `Caches.counts`."""
        return [_counted(packing.unpack(data)[0]) for data in await self._left(command)]

    async def answer(self, command: Look, report: CacheReport) -> None:
        """See `Caches.answer`."""
        await self._leave(command, report.engine_id, engine_codec.encode_cache_report(report))

    async def answers(self, command: Look) -> list[CacheReport]:
        """See `Caches.answers`."""
        stored = await self._left(command)
        return sorted(map(engine_codec.decode_cache_report, stored), key=lambda report: report.engine_id)

    async def _leave(self, command: Look | Release | Count, engine_id: str, answer: bytes) -> None:
        shard = _shard(command)
        key = keys.look(shard, command.ask)
        await self._client.pipeline(
            [(shard, ("HSET", key, engine_id, answer)), (shard, ("EXPIRE", key, ANSWER_TTL))]
        )

    async def _left(self, command: Look | Release | Count) -> list[bytes]:
        shard = _shard(command)
        return await self._client.run(shard, ("HVALS", keys.look(shard, command.ask)))

    async def _publish(self, conversation_id: str, payload: bytes) -> None:
        shard = keys.conversation(conversation_id).shard
        await self._client.run(shard, ("PUBLISH", keys.CACHES_CHANNEL, payload))


def _shard(command: Look | Release | Count) -> int:
    """Return where the answers lie: with the conversation, if there is one."""
    if command.conversation is None:
        return keys.REGISTRY_SHARD
    return keys.conversation(command.conversation).shard


def _count(fields: list[Any]) -> Count:
    engine_id, tenant, ask, conversation, leaf, params = fields
    return Count(engine_id, tenant, codec.params_from(params), ask, conversation, leaf)


def _counted(fields: dict[str, Any]) -> Counted:
    failure = fields["failure"]
    return Counted(fields["tokens"], None if failure is None else Failure(**failure))


_KINDS: dict[str, type[Warm | Look | Release]] = {"warm": Warm, "look": Look, "release": Release}


def read_command(payload: bytes) -> Warm | Look | Release | Count:
    """Return a published command. Raises Unavailable if another version wrote it."""
    kind, *fields = packing.unpack(payload)
    try:
        return _count(fields) if kind == "count" else _KINDS[kind](*fields)
    except (KeyError, TypeError, ValueError) as error:
        raise packing.unreadable(f"not in a form that this version writes ({error})") from None
