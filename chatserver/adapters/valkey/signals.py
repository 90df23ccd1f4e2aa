"""Signals (port `Signals`): publish and subscribe."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence, Set
from contextlib import aclosing

from chatserver.adapters.valkey import frames, keys
from chatserver.adapters.valkey.caches import read_command
from chatserver.adapters.valkey.client import Client
from chatserver.ports.tapes import Bundle, Command, Stop, Wake


class ValkeySignals:
    """Fire-and-forget messages. Each iterator holds its own connection and asks a silent peer for life."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def bundles(self, web_id: str) -> AsyncIterator[Bundle | None]:
        """See `Signals.bundles`."""
        async with aclosing(self._client.subscribe(keys.WEB_CHANNELS + web_id)) as messages:
            async for message in messages:
                yield None if message is None else frames.split(message[1])

    async def changes(self) -> AsyncIterator[str | None]:
        """See `Signals.changes`."""
        async with aclosing(self._client.subscribe(keys.CHANGES_CHANNEL)) as messages:
            async for message in messages:
                yield None if message is None else message[1].decode()

    async def commands(self, engine_id: str) -> AsyncIterator[Command | None]:
        """See `Signals.commands`."""
        own = keys.ENGINE_CHANNELS + engine_id
        async with aclosing(
            self._client.subscribe(keys.ENGINES_CHANNEL, keys.CACHES_CHANNEL, own)
        ) as messages:
            async for message in messages:
                if message is None:
                    yield None
                elif message[0] == own.encode():
                    yield Stop(message[1].decode())
                elif message[0] == keys.CACHES_CHANNEL.encode():
                    yield read_command(message[1])
                else:
                    yield Wake(int(message[1]))

    async def listening(self, engine_ids: Sequence[str]) -> Set[str]:
        """See `Signals.listening`. A subscription is known to the one server that holds it."""
        channels = [keys.ENGINE_CHANNELS + engine_id for engine_id in engine_ids]
        found: set[str] = set()
        for reply in await self._client.everywhere(("PUBSUB", "NUMSUB", *channels)):
            found.update(one for one, count in zip(engine_ids, reply[1::2], strict=True) if count)
        return found
