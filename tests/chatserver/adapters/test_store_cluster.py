"""A cluster that moves a shard's slot from one server to another while the store is in use."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from redis.crc import key_slot

from chatserver.adapters.valkey import ValkeyStore, keys
from chatserver.adapters.valkey.client import connect
from chatserver.domain.ids import SHARDS
from chatserver.errors import StartupError
from tests.chatserver.adapters.things import BOUND, SHARD, TENANT, answered, first_turn, turn
from tests.clusters import NODES, RunningCluster, call, running_cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[RunningCluster]:
    with running_cluster() as running:
        yield running


class Move:
    """The migration of one shard's slot to the next server, step by step."""

    def __init__(self, cluster: RunningCluster, shard: int) -> None:
        self.slot = key_slot(keys.tag(shard).encode())
        owner = next(
            i
            for i in range(NODES)
            if any(self._mine(cluster.port(i), r) for r in call(cluster.nodes[i], "CLUSTER", "SLOTS"))
        )
        self.source, self.target = cluster.nodes[owner], cluster.nodes[(owner + 1) % NODES]
        self.target_port = cluster.port((owner + 1) % NODES)
        self.nodes = cluster.nodes

    def _mine(self, port: int, served: list[object]) -> bool:
        first, last, holder = served[:3]
        assert isinstance(first, int) and isinstance(last, int) and isinstance(holder, list)
        return first <= self.slot <= last and holder[1] == port

    def begin(self) -> None:
        call(self.target, "CLUSTER", "SETSLOT", self.slot, "IMPORTING", _name(self.source))
        call(self.source, "CLUSTER", "SETSLOT", self.slot, "MIGRATING", _name(self.target))

    def carry_keys(self) -> None:
        while found := call(self.source, "CLUSTER", "GETKEYSINSLOT", self.slot, 100):
            call(self.source, "MIGRATE", "127.0.0.1", self.target_port, "", 0, 5000, "KEYS", *found)

    def end(self) -> None:
        for node in (self.target, self.source):
            call(node, "CLUSTER", "SETSLOT", self.slot, "NODE", _name(self.target))


def _name(node: object) -> str:
    name = call(node, "CLUSTER", "MYID")  # type: ignore[arg-type]
    return name.decode() if isinstance(name, bytes) else str(name)


async def test_a_moved_slot_is_found_again(cluster: RunningCluster) -> None:
    """Before, during (redirected once) and after (learned) the move, every step works and nothing is lost."""
    store = await ValkeyStore.open(cluster.url)
    first, second, third = first_turn(), first_turn(), first_turn()
    await answered(store, first)
    move = Move(cluster, SHARD)
    move.begin()
    move.carry_keys()
    # a step on several keys must wait until its slot has settled, a read of one key is redirected
    waiting = asyncio.create_task(answered(store, second))
    assert await store.turns.get(TENANT, first.response.id)
    assert not waiting.done()
    move.end()
    await waiting
    await answered(store, third)
    listed = await store.conversations.list(TENANT, limit=9)
    assert {c.id for c in listed} == {t.response.conversation for t in (first, second, third)}
    await store.close()


async def test_shards_are_on_different_servers(cluster: RunningCluster) -> None:
    """The sixteen shards spread: no server of three has none."""
    client = await connect(cluster.url)
    assert len({link.address for link in client._homes}) == NODES
    assert not client.together
    store = ValkeyStore(client)
    for shard in range(SHARDS):
        await store.turns.begin(turn(shard=shard), queue_bound=BOUND)
    assert await store.turns.waiting() == SHARDS
    assert [bool(await store.turns.claim("eng-a", lease=30)) for _ in range(SHARDS)] == [True] * SHARDS
    assert await store.turns.release("eng-a") == SHARDS
    await client.close()


async def test_another_database_than_0_is_refused_at_the_start(cluster: RunningCluster) -> None:
    with pytest.raises(StartupError, match="cannot reach Redis"):
        await ValkeyStore.open(f"{cluster.url}/3")
