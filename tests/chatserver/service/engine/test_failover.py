"""A Redis Cluster whose primary is killed in mid-answer: its replica takes over, and the answer is whole."""

from __future__ import annotations

import asyncio

from redis.crc import key_slot

from chatserver.adapters.valkey import ValkeyStore, keys
from chatserver.domain.tape import Cursor, Delta
from chatserver.service.web.hub import Hub
from tests.chatserver.service.engine_role import (
    TENANT,
    ended,
    run_turn,
    scripted,
    stateless,
    text_of,
    tokens_on_tape,
    worker,
)
from tests.clusters import running_cluster

TOKENS = 400
SHARD = 3
"""The one that `stateless` puts its responses in."""


async def test_an_answer_survives_the_death_of_its_primary():
    """Pauses until the replica has taken over; every number once, the text of an undisturbed run, all of it stored."""
    with running_cluster(replicas=True) as cluster:
        store = await ValkeyStore.open(cluster.url)
        hub = Hub(store.tapes, store.signals, "web_1")
        await hub.start()
        async with scripted() as engine, worker(store, engine):
            expected = await run_turn(store, stateless("Tides", max_output_tokens=TOKENS))
        async with scripted(tokens_per_second=100) as engine, worker(store, engine, lease=3.0):
            turn = stateless("Tides", max_output_tokens=TOKENS)
            await store.turns.begin(turn, queue_bound=10)
            reader = hub.follow(turn.response.id)
            reading = asyncio.create_task(_all(reader))
            async with asyncio.timeout(60):
                while await tokens_on_tape(store, turn.response.id) < TOKENS // 4:
                    await asyncio.sleep(0.01)
            cluster.kill_holder(key_slot(keys.tag(SHARD).encode()))
            async with asyncio.timeout(90):
                records = await reading
            response = await ended(store, turn.response.id)
        await hub.close()
        stored = await store.tapes.read(turn.response.id, -1)
        await store.close()
    cursor = Cursor()
    assert all(cursor.take(record) for record in records) and cursor.ended
    assert text_of(records) == expected.outcome.item.text == response.outcome.item.text
    assert sum(len(r.body.ids) for r in stored if isinstance(r.body, Delta)) == TOKENS
    assert response.tenant == TENANT


async def _all(reader):
    return [record async for record in reader]
