"""One contract, two servers: the embedded Valkey, and Debian's Redis where it is installed."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from chatserver.adapters.valkey import ValkeyStore, keys
from chatserver.adapters.valkey.client import Client, connect
from chatserver.adapters.valkey.connect import Reply
from chatserver.adapters.valkey.scripts import Command
from tests.stores import RunningStore, running_store

REDIS = shutil.which("redis-server")
_no_redis = pytest.mark.skipif(REDIS is None, reason="no redis-server on this machine")


class OneSlot(Client):
    """A client that holds every step to the rule that lets it run on a cluster: one slot a step."""

    async def pipeline(self, commands: Sequence[tuple[int, Command]], *, again: bool = True) -> list[Reply]:
        for shard, command in commands:
            names = command[3 : 3 + int(command[2])] if command[0] == "EVALSHA" else ()
            strays = [key for key in names if not str(key).startswith(keys.tag(shard))]
            assert not strays, f"{command[0]} of shard {shard} touches {strays}"
        return await super().pipeline(commands, again=again)


@pytest.fixture(scope="session", params=["valkey", pytest.param("redis", marks=_no_redis)])
def server(request: pytest.FixtureRequest) -> Iterator[RunningStore]:
    """A server for the whole session."""
    with running_store(Path(REDIS) if request.param == "redis" and REDIS else None) as running:
        yield running


@pytest.fixture
async def client(server: RunningStore) -> AsyncIterator[Client]:
    """A client of an empty server."""
    opened = await connect(server.url)
    await opened.run(0, ("FLUSHALL",))
    opened.__class__ = OneSlot
    yield opened
    await opened.close()


@pytest.fixture
def store(client: Client) -> ValkeyStore:
    """An empty store."""
    return ValkeyStore(client)


@pytest.fixture
def server_url(server: RunningStore) -> str:
    """Where the server listens, for tests that need more than one client."""
    return server.url
