"""One contract, three stores: the embedded Valkey, Debian's Redis where it is installed, a cluster."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from chatserver.adapters.valkey import ValkeyStore, keys
from chatserver.adapters.valkey.client import Client, connect
from chatserver.adapters.valkey.connect import Reply
from chatserver.adapters.valkey.scripts import Command, title
from chatserver.adapters.valkey.turn_steps import awake
from chatserver.domain.ids import SHARDS
from tests.clusters import running_cluster
from tests.stores import running_store

REDIS = shutil.which("redis-server")
_no_redis = pytest.mark.skipif(REDIS is None, reason="no redis-server on this machine")


class OneSlot(Client):
    """A client that holds every step to the rule that lets it run on a cluster: one slot a step.

    Where the server is one, a claim is one step for all shards, and all look at one key that says who is awake.
    """

    async def pipeline(self, commands: Sequence[tuple[int, Command]], *, again: bool = True) -> list[Reply]:
        for shard, command in commands:
            if self.together and title(command) == "claim":
                continue
            names = command[3 : 3 + int(command[2])] if command[0] == "EVALSHA" else ()
            shared = (awake(shard, together=True),) if self.together else ()
            strays = [key for key in names if key not in shared and not str(key).startswith(keys.tag(shard))]
            assert not strays, f"{command[0]} of shard {shard} touches {strays}"
        return await super().pipeline(commands, again=again)


@pytest.fixture(scope="session", params=["valkey", pytest.param("redis", marks=_no_redis), "cluster"])
def server_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where a server listens that runs for the whole session."""
    if request.param == "cluster":
        with running_cluster() as cluster:
            yield cluster.url
    else:
        with running_store(Path(REDIS) if request.param == "redis" and REDIS else None) as running:
            yield running.url


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    """A client of an empty store."""
    opened = await connect(server_url)
    await opened.pipeline([(shard, ("FLUSHALL",)) for shard in range(SHARDS)])
    opened.__class__ = OneSlot
    yield opened
    await opened.close()


@pytest.fixture
def store(client: Client) -> ValkeyStore:
    """An empty store."""
    return ValkeyStore(client)
