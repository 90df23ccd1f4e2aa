"""One contract, two servers: the embedded Valkey, and Debian's Redis where it is installed."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from chatserver.adapters.valkey import ValkeyStore
from chatserver.adapters.valkey.client import connect
from tests.stores import RunningStore, running_store

REDIS = shutil.which("redis-server")


@pytest.fixture(scope="session", params=["valkey", pytest.param("redis", marks=pytest.mark.skipif(not REDIS, reason="no redis-server"))])
def server(request: pytest.FixtureRequest) -> Iterator[RunningStore]:
    """A server for the whole session."""
    with running_store(Path(REDIS) if request.param == "redis" and REDIS else None) as running:
        yield running


@pytest.fixture
async def store(server: RunningStore) -> AsyncIterator[ValkeyStore]:
    """An empty store."""
    client = await connect(server.url)
    await client.run(0, ("FLUSHALL",))
    await client.close()
    opened = await ValkeyStore.open(server.url)
    yield opened
    await opened.close()
