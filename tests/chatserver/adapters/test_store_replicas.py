"""A cluster with replicas: what the store acknowledged is there after a fail-over, and a dead replica stops nobody."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import aclosing

import pytest
from redis.crc import key_slot

from chatserver.adapters.valkey import ValkeyStore, client, keys
from chatserver.domain.response import Response
from chatserver.domain.tape import Delta, Record
from chatserver.errors import Unavailable
from tests.chatserver.adapters.things import BOUND, SHARD, delta, opening, turn
from tests.clusters import RunningCluster, running_cluster

SLOT = key_slot(keys.tag(SHARD).encode())
FIRST = 5
"""Sequence number of a claimed answer's first token."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[RunningCluster]:
    with running_cluster(replicas=True) as running:
        yield running


async def running(store: ValkeyStore) -> Response:
    """A response that an engine has claimed and begun to write."""
    await store.turns.begin(turn(shard=SHARD), queue_bound=BOUND)
    (claimed,) = await store.turns.claim("eng-a", lease=60, shard=SHARD)
    assert (await store.tapes.commit([opening(claimed)]))[0].ok
    return claimed


async def insist(store: ValkeyStore, response: Response, number: int) -> bool:
    """Commit one token, again and again while the store is away, as the tape writer does."""
    async with asyncio.timeout(90):
        while True:
            try:
                return (await store.tapes.commit([delta(response, number, f"{number} ")]))[0].ok
            except Unavailable:
                await asyncio.sleep(0.1)


async def test_a_replica_that_stands_still_is_not_waited_for_twice(
    cluster: RunningCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """One commit waits for its second, the next ones go on without, and the log says what that means."""
    store = await ValkeyStore.open(cluster.url)
    response = await running(store)
    cluster.signal_replica(SLOT, signal.SIGSTOP)
    began = time.monotonic()
    assert await insist(store, response, FIRST)
    assert time.monotonic() - began >= client.FOLLOW_WITHIN
    for number in range(FIRST + 1, FIRST + 20):
        assert await insist(store, response, number)
    waited = [r.message for r in caplog.records if "a fail-over may lose" in r.message]
    assert 1 <= len(waited) < 5, "twenty waited"
    cluster.signal_replica(SLOT, signal.SIGCONT)
    await store.close()


async def test_what_was_acknowledged_is_there_after_a_fail_over(
    cluster: RunningCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The primary is killed while its replica is behind: the commit that only the primary has was not acknowledged."""
    monkeypatch.setattr(client, "FOLLOW_WITHIN", 60.0)
    store = await ValkeyStore.open(cluster.url)
    response = await running(store)
    assert await insist(store, response, FIRST)
    cluster.signal_replica(SLOT, signal.SIGSTOP)
    late = asyncio.create_task(insist(store, response, FIRST + 1))
    await asyncio.sleep(0.5)
    assert not late.done(), "acknowledged, though a fail-over would lose it"
    cluster.kill_holder(SLOT)
    cluster.signal_replica(SLOT, signal.SIGCONT)
    assert await late, "the replica refused what came next: it leaves a gap"
    assert await insist(store, response, FIRST + 2)
    tokens = [r for r in await store.tapes.read(response.id, -1) if isinstance(r.body, Delta)]
    assert tokens == [Record(FIRST + i, Delta((f"{FIRST + i} ",), (FIRST + i,))) for i in range(3)]
    async with aclosing(store.signals.commands("eng-a")) as commands:  # type: ignore[type-var]
        assert await anext(commands) is None
        assert await store.signals.listening(["eng-a", "eng-b"]) == {"eng-a"}, "one server is gone for good"
        assert await store.signals.listening(["eng-a"]) == {"eng-a"}
    await store.close()


async def test_a_replica_that_comes_later_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster is asked again from time to time: no command would be refused because of a new replica."""
    monkeypatch.setattr(client, "LEARN_AGAIN", 0.2)
    with running_cluster() as cluster:
        store = await ValkeyStore.open(cluster.url)
        response = await running(store)
        cluster.add_replicas()
        await asyncio.sleep(0.3)
        assert await insist(store, response, FIRST)  # learns
        cluster.signal_replica(SLOT, signal.SIGSTOP)
        began = time.monotonic()
        assert await insist(store, response, FIRST + 1)
        assert time.monotonic() - began >= client.FOLLOW_WITHIN
        cluster.signal_replica(SLOT, signal.SIGCONT)
        await store.close()
