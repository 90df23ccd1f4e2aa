"""Questions about the KV cache (port `Caches`): published to all engines, answered in a hash that expires."""

from __future__ import annotations

from chatserver.adapters.valkey import codec, keys
from chatserver.adapters.valkey.client import Client
from chatserver.ports.caches import CacheReport, Look, Warm

ANSWER_TTL = 10
"""Seconds that answers are kept."""


class ValkeyCaches:
    """See `Caches`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def warm(self, command: Warm) -> None:
        """See `Caches.warm`."""
        await self._publish(command.conversation, codec.pack("warm", command.tenant, command.conversation))

    async def look(self, command: Look) -> None:
        """See `Caches.look`."""
        payload = codec.pack("look", command.tenant, command.conversation, command.ask)
        await self._publish(command.conversation, payload)

    async def answer(self, command: Look, report: CacheReport) -> None:
        """See `Caches.answer`."""
        shard = keys.conversation(command.conversation).shard
        key = keys.look(shard, command.ask)
        await self._client.pipeline(
            [
                (shard, ("HSET", key, report.engine_id, codec.encode_cache_report(report))),
                (shard, ("EXPIRE", key, ANSWER_TTL)),
            ]
        )

    async def answers(self, command: Look) -> list[CacheReport]:
        """See `Caches.answers`."""
        shard = keys.conversation(command.conversation).shard
        stored = await self._client.run(shard, ("HVALS", keys.look(shard, command.ask)))
        return sorted(map(codec.decode_cache_report, stored), key=lambda report: report.engine_id)

    async def _publish(self, conversation_id: str, payload: bytes) -> None:
        shard = keys.conversation(conversation_id).shard
        await self._client.run(shard, ("PUBLISH", keys.CACHES_CHANNEL, payload))


def read_command(payload: bytes) -> Warm | Look:
    """Return a published command. Raises Unavailable if another version wrote it."""
    kind, *fields = codec.unpack(payload)
    try:
        return Look(*fields) if kind == "look" else Warm(*fields)
    except TypeError as error:
        raise codec.unreadable(f"not in a form that this version writes ({error})") from None
