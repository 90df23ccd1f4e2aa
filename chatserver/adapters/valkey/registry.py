"""Engines and models (port `Registry`)."""

from __future__ import annotations

from collections.abc import Sequence

from chatserver.adapters.valkey import engine_codec, keys
from chatserver.adapters.valkey.client import Client
from chatserver.adapters.valkey.scripts import Command, script
from chatserver.ports.registry import EngineReport, ExpertLoad, ServedModel

_SHARD = keys.REGISTRY_SHARD


class ValkeyRegistry:
    """Reports with an expiry on the server's clock; models for good."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def put(self, report: EngineReport, *, ttl: float) -> int:
        """See `Registry.put`. An engine that was lost counts until somebody asks for the reports."""
        commands: list[Command] = [
            (
                "SET",
                keys.engine(report.engine_id),
                engine_codec.encode_report(report),
                "PX",
                max(1, int(ttl * 1000)),
            ),
            ("SADD", keys.engines(), report.engine_id),
            ("SCARD", keys.engines()),
        ]
        if report.model is not None:
            commands.append(
                ("HSET", keys.models(), report.model.name, engine_codec.encode_model(report.model))
            )
        _, _, engines, *_ = await self._client.pipeline([(_SHARD, command) for command in commands])
        return engines

    async def drop(self, engine_id: str) -> None:
        """See `Registry.drop`."""
        commands: list[Command] = [("DEL", keys.engine(engine_id)), ("SREM", keys.engines(), engine_id)]
        await self._client.pipeline([(_SHARD, command) for command in commands])

    async def engines(self) -> list[EngineReport]:
        """See `Registry.engines`; in order of their ids."""
        reports = await self._client.run(
            _SHARD, script("engines").command((keys.engines(),), keys.engine(""))
        )
        return sorted(map(engine_codec.decode_report, reports), key=lambda report: report.engine_id)

    async def put_experts(self, engine_id: str, load: ExpertLoad, *, ttl: float) -> None:
        """See `Registry.put_experts`."""
        value, key = engine_codec.encode_experts(load), keys.experts(engine_id)
        await self._client.run(_SHARD, ("SET", key, value, "PX", max(1, int(ttl * 1000))))

    async def experts(self, engine_ids: Sequence[str]) -> dict[str, ExpertLoad]:
        """See `Registry.experts`."""
        if not engine_ids:
            return {}
        found = await self._client.run(_SHARD, ("MGET", *map(keys.experts, engine_ids)))
        pairs = zip(engine_ids, found, strict=True)
        return {engine_id: engine_codec.decode_experts(data) for engine_id, data in pairs if data is not None}

    async def models(self) -> list[ServedModel]:
        """See `Registry.models`; in order of their names."""
        stored = await self._client.run(_SHARD, ("HVALS", keys.models()))
        return sorted(map(engine_codec.decode_model, stored), key=lambda model: model.name)

    async def ping(self) -> None:
        """See `Registry.ping`."""
        await self._client.run(_SHARD, ("PING",))
