"""Secrets (port `Secrets`): made by whoever asks first, then read by all."""

from __future__ import annotations

import secrets

from chatserver.adapters.valkey import keys, packing
from chatserver.adapters.valkey.client import Client

LENGTH = 32


class ValkeySecrets:
    """See `Secrets`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def cache_salt(self) -> bytes:
        """See `Secrets.cache_salt`."""
        shard, key = keys.REGISTRY_SHARD, keys.cache_salt()
        # NX: of two processes that start at once the first one's stays, and both read that one
        await self._client.run(shard, ("SET", key, secrets.token_bytes(LENGTH), "NX"))
        found = await self._client.run(shard, ("GET", key))
        if found is None or len(found) != LENGTH:
            raise packing.unreadable(f"not the {LENGTH} random bytes that the key {key} should hold")
        return found
