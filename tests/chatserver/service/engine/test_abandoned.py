"""Answers that nobody watches: stopped, or gone out of the others' way; those that must not be, are not."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from chatserver.domain.response import Finish, Status
from chatserver.domain.tape import Delta
from chatserver.service.engine import turn as turn_module
from chatserver.service.engine.abandoned import Abandoned
from chatserver.service.web import hub as hub_module
from chatserver.service.web.follower import Follower
from chatserver.service.web.hub import Hub
from tests.chatserver.service.engine_role import (
    ended,
    first_turn,
    run_turn,
    scripted,
    stateless,
    tokens_on_tape,
    worker,
)

AFTER = 1.0
WEB = "web_1"


@pytest.fixture
async def web(store, monkeypatch):
    """A web process that says often what it watches."""
    monkeypatch.setattr(hub_module, "SWEEP", 0.05)
    monkeypatch.setattr(hub_module, "WATCH_ON", 0.1)
    monkeypatch.setattr(hub_module, "LINGER", 0.05)
    web = Hub(store.tapes, store.signals, WEB)
    await web.start()
    yield web
    await web.close()


@asynccontextmanager
async def role(store, policy, *, places=16, speed=100.0):
    """An engine role with that policy."""
    limits = {"max_running": places, "abandon_after": AFTER, "abandoned": policy}
    async with scripted(tokens_per_second=speed) as engine, worker(store, engine, **limits):
        yield engine


async def begin(store, turn, **changes) -> str:
    begun = await store.turns.begin(replace(turn, **changes), queue_bound=100)
    return begun.response_id


async def watched_for_long(store, web) -> tuple[str, Follower] | None:
    """Watch a new answer for twice the time after which it would be stopped; None if it was, the watcher being late."""
    clock = asyncio.get_running_loop().time
    response_id = await begin(store, first_turn("Long", max_output_tokens=2000), watcher=WEB, deserted=False)
    reader, late = web.follow(response_id, watched=True), 0.0
    for _ in range(int(AFTER * 2 / 0.05)):
        before = clock()
        await reader.batch(0.05)
        await asyncio.sleep(0.05)
        late = max(late, clock() - before)
    if not (await store.turns.get("tests", response_id)).status.ended:
        return response_id, reader
    assert late > AFTER / 2
    await reader.aclose()
    return None


async def test_an_answer_that_nobody_watches_is_stopped(store, web):
    """After the time, not before; what was written stays, the account is exact."""
    async with role(store, Abandoned.STOP):
        async with asyncio.timeout(120):
            while (watched := await watched_for_long(store, web)) is None:
                pass  # the machine held up the watcher, too, and it was late
        response_id, reader = watched
        await reader.aclose()
        left = asyncio.get_running_loop().time()
        response = await ended(store, response_id)
        assert asyncio.get_running_loop().time() - left > AFTER * 0.4
    assert (response.status, response.outcome.finish) == (Status.CANCELLED, Finish.STOPPED)
    assert response.outcome.usage.output == await tokens_on_tape(store, response_id) > 50


async def test_a_watcher_that_died_does_not_count(store):
    """A web process that was killed never says that it left: its silence does."""
    async with role(store, Abandoned.STOP):
        response_id = await begin(
            store, stateless("Long", max_output_tokens=2000), watcher=WEB, deserted=False
        )
        assert (await ended(store, response_id)).outcome.finish is Finish.STOPPED


async def test_background_answers_run_on(store):
    """Nobody has to watch what was begun to run alone."""
    async with role(store, Abandoned.STOP):
        response = await run_turn(store, stateless("Alone", max_output_tokens=120))
    assert response.outcome.usage.output == 120


async def test_an_abandoned_answer_gives_way_and_goes_on_when_there_is_room(store):
    """The one that waits is answered first; then the other goes on to the same text as if nothing had been."""
    async with scripted() as engine, worker(store, engine):
        expected = await run_turn(store, stateless("Long", max_output_tokens=500))
    async with role(store, Abandoned.GIVE_WAY, places=1):
        long = await begin(store, stateless("Long", max_output_tokens=500), watcher=WEB, deserted=False)
        async with asyncio.timeout(60):
            while await tokens_on_tape(store, long) < 80:
                await asyncio.sleep(0.01)
        short = await begin(store, stateless("Short", max_output_tokens=20))
        assert (await ended(store, short)).outcome.usage.output == 20
        assert not (await store.turns.get("tests", long)).status.ended
        response = await ended(store, long)
    deltas = [r for r in await store.tapes.read(long, -1) if isinstance(r.body, Delta)]
    assert "".join(record.body.text for record in deltas) == expected.outcome.item.text
    assert response.outcome.item.text == expected.outcome.item.text
    assert (response.status, response.outcome.usage.output) == (Status.INCOMPLETE, 500)


async def test_one_that_gave_way_can_still_be_stopped(store):
    """A stop reaches an answer that takes no place in the scheduler."""
    async with role(store, Abandoned.GIVE_WAY, places=1):
        first = await begin(store, stateless("Long", max_output_tokens=5000), watcher=WEB, deserted=False)
        await asyncio.sleep(AFTER)
        second = await begin(store, stateless("Other", max_output_tokens=5000))
        async with asyncio.timeout(60):
            while not await tokens_on_tape(store, second):
                await asyncio.sleep(0.01)
        await store.turns.stop("tests", first, 0)
        assert (await ended(store, first)).status is Status.CANCELLED
        await store.turns.stop("tests", second, 0)
        await ended(store, second)


async def test_one_that_gave_way_does_not_wait_for_ever(store, monkeypatch):
    """Others that never end do not starve it: after a while it takes its place again."""
    monkeypatch.setattr(turn_module, "LONGEST_WAIT", 1.5)  # longer than between two looks for jobs
    async with role(store, Abandoned.GIVE_WAY, places=1):
        first = await begin(store, stateless("Long", max_output_tokens=5000), watcher=WEB, deserted=False)
        await asyncio.sleep(AFTER)
        second = await begin(store, stateless("Other", max_output_tokens=5000))
        async with asyncio.timeout(60):
            while not await tokens_on_tape(store, second):
                await asyncio.sleep(0.01)
        before = await tokens_on_tape(store, first)
        async with asyncio.timeout(60):
            while await tokens_on_tape(store, first) <= before:
                await asyncio.sleep(0.01)
        assert not (await store.turns.get("tests", second)).status.ended
        for one in (first, second):
            await store.turns.stop("tests", one, 0)
            await ended(store, one)
