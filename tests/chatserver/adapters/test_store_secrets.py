"""The store's secrets: random, made once, the same for all."""

from __future__ import annotations

import asyncio

import pytest

from chatserver.adapters.valkey import ValkeyStore, keys
from chatserver.adapters.valkey.client import Client
from chatserver.errors import Unavailable


async def test_all_processes_get_the_same(store: ValkeyStore, server_url: str) -> None:
    """Also when they ask at once, on a store that has none yet."""
    others = [await ValkeyStore.open(server_url) for _ in range(4)]
    found = set(await asyncio.gather(*(other.secrets.cache_salt() for other in (store, *others))))
    for other in others:
        await other.close()
    assert len(found) == 1
    assert len(found.pop()) == 32


async def test_another_store_has_another(store: ValkeyStore, client: Client) -> None:
    """It is random, not derived from anything."""
    first = await store.secrets.cache_salt()
    await client.run(keys.REGISTRY_SHARD, ("DEL", keys.cache_salt()))
    assert await store.secrets.cache_salt() != first


async def test_a_broken_one_is_not_used(store: ValkeyStore, client: Client) -> None:
    """Somebody wrote over it: say so instead of salting with what can be guessed."""
    await client.run(keys.REGISTRY_SHARD, ("SET", keys.cache_salt(), "x"))
    with pytest.raises(Unavailable, match="cache-salt"):
        await store.secrets.cache_salt()
