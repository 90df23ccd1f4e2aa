"""Leases: an engine that lost an answer and got it again keeps what it has now."""

import asyncio

from chatserver.domain.tape import Started
from tests.chatserver.service.engine_role import ended, scripted, stateless, tokens_on_tape, worker


async def test_what_was_claimed_again_is_not_lost_with_the_older_claim(store, monkeypatch):
    """The store's word on the older claim may come late, when this engine has the answer under a newer one."""
    renew, late = store.turns.renew, []

    async def renew_late(engine_id, response_ids, *, lease):
        if late or not response_ids:
            return await renew(engine_id, response_ids, lease=lease)
        late.extend(response_ids)
        (response_id,) = response_ids
        before = working._running[response_id][0]
        assert await store.turns.release(engine_id) == 1
        while working._running[response_id][0] is before:
            await asyncio.sleep(0.005)
        return response_ids

    monkeypatch.setattr(store.turns, "renew", renew_late)
    async with scripted(tokens_per_second=100) as engine, worker(store, engine, lease=1.2) as working:
        turn = stateless("Long", max_output_tokens=150)
        response_id = (await store.turns.begin(turn, queue_bound=100)).response_id
        response = await ended(store, response_id)
    assert late and response.outcome.usage.output == 150 == await tokens_on_tape(store, response_id)
    records = await store.tapes.read(response_id, -1)
    assert [r.body.claim for r in records if isinstance(r.body, Started)] == [1, 2]
