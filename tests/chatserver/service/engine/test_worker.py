"""The engine role: claims, turns, stops, crashes, hand-over; scripted engine on a real Valkey."""

import asyncio

from chatserver.domain.response import Finish, Status, Truncation
from chatserver.domain.tape import Cursor, Delta, Ended, ItemClosed, Started
from chatserver.ports.registry import EngineState
from chatserver.ports.turns import NewTurn
from chatserver.service.engine import worker as worker_module
from tests.chatserver.service.engine_role import (
    TENANT,
    again,
    ended,
    first_turn,
    next_turn,
    run_turn,
    scripted,
    stateless,
    text_of,
    tokens_on_tape,
    worker,
)


async def begin(store, turn: NewTurn) -> str:
    return (await store.turns.begin(turn, queue_bound=100)).response_id


async def wait_for_tokens(store, response_id: str, count: int) -> None:
    async with asyncio.timeout(60):
        while await tokens_on_tape(store, response_id) < count:
            await asyncio.sleep(0.005)


async def test_a_turn_writes_a_whole_gapless_tape(store):
    """Accepted … Ended, every number once; the text of the deltas is the text of the item and of the answer."""
    async with scripted() as engine, worker(store, engine):
        response = await run_turn(store, stateless())
    records = await store.tapes.read(response.id, -1)
    cursor = Cursor()
    assert [cursor.take(record) for record in records] == records
    closed = next(r.body for r in records if isinstance(r.body, ItemClosed))
    assert text_of(records) == closed.text == response.outcome.item.text != ""
    assert response.outcome.usage.output == 20 == await tokens_on_tape(store, response.id)
    assert (response.status, response.outcome.finish) == (Status.INCOMPLETE, Finish.LENGTH)


async def test_the_next_turn_is_served_from_the_cache(store):
    """Turn N+1 sends the stored ids: all of turn N but at most one token comes from the cache."""
    async with scripted() as engine, worker(store, engine):
        response = await run_turn(store, first_turn("One"))
        for question in ("Two", "Three"):
            before = response.outcome.usage
            response = await run_turn(store, next_turn(response, question))
            assert response.outcome.usage.cached >= before.prompt + before.output - 1
    branch = await store.conversations.branch(TENANT, response.conversation, response.item_id, with_ids=True)
    sent = sum(len(stored.ids) for stored in branch)
    head = len(engine.tokenizer.head(None))
    assert response.outcome.ledger.sent == response.outcome.usage.prompt
    assert response.outcome.usage.prompt + response.outcome.usage.output <= head + sent


async def test_a_stop_while_running_keeps_what_was_written(store):
    """A stop ends the answer long before its length, with exact usage, and the next turn hits it."""
    async with scripted(tokens_per_second=100) as engine, worker(store, engine):
        turn = first_turn("Long", max_output_tokens=7000)
        response_id = await begin(store, turn)
        await wait_for_tokens(store, response_id, 5)
        await store.turns.stop(TENANT, response_id, 0)
        response = await ended(store, response_id)
        assert response.status is Status.CANCELLED
        assert 5 <= response.outcome.usage.output == await tokens_on_tape(store, response_id) < 7000
        after = await run_turn(store, next_turn(response, "Go on"))
        stopped = response.outcome.usage
        assert after.outcome.usage.cached >= stopped.prompt + stopped.output - 1
        assert (await engine.health()).running == 0


async def test_a_stop_before_any_engine_took_it(store):
    """A queued answer is stopped at once, with no engine there."""
    response_id = await begin(store, first_turn("Never"))
    response = await store.turns.stop(TENANT, response_id, 0)
    assert response.status is Status.CANCELLED
    async with scripted() as engine, worker(store, engine):
        await asyncio.sleep(0.2)
        assert isinstance((await store.tapes.read(response_id, -1))[-1].body, Ended)
        assert await tokens_on_tape(store, response_id) == 0


async def test_an_engine_that_vanishes_is_continued_by_the_next(store):
    """No goodbye, no release: once the lease has run out another engine finishes the same answer."""
    question = first_turn("Tides", max_output_tokens=150)
    async with scripted() as engine, worker(store, engine):
        expected = await run_turn(store, stateless("Tides", max_output_tokens=150))
    async with scripted(tokens_per_second=100) as engine, worker(store, engine, lease=1.0):
        response_id = await begin(store, question)
        await wait_for_tokens(store, response_id, 20)
    async with scripted() as engine, worker(store, engine, lease=1.0):
        response = await ended(store, response_id)
    records = await store.tapes.read(response_id, -1)
    cursor = Cursor()
    assert all(cursor.take(record) for record in records)
    claims = [r.body.claim for r in records if isinstance(r.body, Started)]
    assert len(claims) > 1 and claims == sorted(set(claims))
    assert response.outcome.item.text == text_of(records) == expected.outcome.item.text
    assert response.outcome.usage.output == 150


async def test_a_released_engine_is_continued_at_once(store):
    """The supervisor releases a dead engine's jobs: no lease has to run out."""
    async with scripted(tokens_per_second=100) as engine, worker(store, engine, lease=600) as first:
        response_id = await begin(store, first_turn("Tides", max_output_tokens=1000))
        await wait_for_tokens(store, response_id, 10)
    assert await store.turns.release(first._engine_id) == 1
    async with scripted() as engine, worker(store, engine, lease=600):
        assert (await ended(store, response_id)).outcome.usage.output == 1000


async def test_the_late_writes_of_a_lost_claim_are_refused(store):
    """An engine that was taken for dead writes nothing more once another has the job."""
    async with scripted(tokens_per_second=50) as slow, worker(store, slow, lease=600) as zombie:
        response_id = await begin(store, first_turn("Tides", max_output_tokens=120))
        await wait_for_tokens(store, response_id, 5)
        await store.turns.release(zombie._engine_id)
        async with scripted() as fast, worker(store, fast, lease=600):
            response = await ended(store, response_id)
            await asyncio.sleep(0.2)
    cursor = Cursor()
    records = await store.tapes.read(response_id, -1)
    assert all(cursor.take(record) for record in records)
    assert response.outcome.usage.output == 120 == await tokens_on_tape(store, response_id)


async def test_an_answer_that_kills_its_engine_is_given_up(store):
    """A job that was claimed again and again is failed in words instead of taking down every engine."""
    response_id = await begin(store, first_turn("Poison"))
    for number in range(4):
        assert await store.turns.claim(f"eng{number}", lease=600)
        await store.turns.release(f"eng{number}")
    async with scripted() as engine, worker(store, engine):
        response = await ended(store, response_id)
    assert response.status is Status.FAILED
    assert "died 4 times" in response.outcome.failure.message


async def test_a_prompt_that_does_not_fit_takes_its_input_back(store):
    """The refusal gives the counts, and the conversation is as it was before."""
    async with scripted(context=512) as engine, worker(store, engine):
        good = await run_turn(store, first_turn("Hi"))
        bad = await run_turn(store, next_turn(good, "word " * 2000))
        assert bad.status is Status.FAILED
        assert bad.outcome.failure.code == "context_length_exceeded"
        assert "512" in bad.outcome.failure.message
        conversation = await store.conversations.get(TENANT, good.conversation)
        assert (conversation.head, conversation.active) == (good.item_id, None)
        assert (await run_turn(store, next_turn(good, "Still there?"))).status is Status.INCOMPLETE


async def test_a_conversation_past_the_window_is_cut_in_big_steps(store):
    """With truncation auto: the window is never exceeded, cuts are rare, and between cuts the cache serves the past."""
    async with scripted(context=1024) as engine, worker(store, engine):
        response, cuts, misses = (
            await run_turn(store, first_turn("x " * 20, truncation=Truncation.AUTO)),
            [],
            [],
        )
        for number in range(24):
            before = response.outcome
            response = await run_turn(
                store, next_turn(response, f"{number} " + "y " * 20, truncation=Truncation.AUTO)
            )
            outcome = response.outcome
            assert outcome.status is Status.INCOMPLETE, outcome.failure
            assert outcome.usage.prompt + 20 <= 1024
            branch = await store.conversations.branch(
                TENANT, response.conversation, response.inputs[-1], with_ids=False
            )
            ledger = outcome.ledger.of_branch([stored.item.id for stored in branch])
            assert sorted(ledger.kept + ledger.dropped) == sorted(stored.item.id for stored in branch)
            assert ledger.cut is None or ledger.cut == ledger.kept[ledger.pinned]
            if outcome.ledger.cut != before.ledger.cut:
                cuts.append(number)
            else:
                misses.append(before.usage.prompt + before.usage.output - 1 - outcome.usage.cached)
    assert 2 <= len(cuts) <= 8
    assert max(misses) <= 0


async def test_stop_strings_end_the_text_before_them(store):
    """The stop string and what follows do not appear, on the tape or in the item."""
    async with scripted() as engine, worker(store, engine):
        whole = (await run_turn(store, stateless("Tides", max_output_tokens=60))).outcome.item.text
        stop = whole[len(whole) // 2 : len(whole) // 2 + 4]
        response = await run_turn(store, stateless("Tides", max_output_tokens=60, stop=(stop,)))
    assert response.outcome.item.text == whole[: whole.find(stop)]
    assert response.outcome.finish is Finish.STOP


async def test_a_job_for_another_model_is_refused_in_words(store):
    """A job that waited for a model that is gone fails with what is served instead."""
    turn = stateless()
    object.__setattr__(turn.response.params, "model", "gone-model")
    async with scripted() as engine, worker(store, engine):
        response = await run_turn(store, turn)
    assert response.outcome.failure.status == 404
    assert "scripted" in response.outcome.failure.message


async def test_draining_finishes_or_hands_over(store):
    """A draining engine takes nothing new, and gives back what it cannot finish in time."""
    async with scripted(tokens_per_second=20) as engine, worker(store, engine, drain=0.3) as draining:
        response_id = await begin(store, first_turn("Long", max_output_tokens=100))
        await wait_for_tokens(store, response_id, 2)
        async with asyncio.timeout(60):
            await draining.drain()
        assert await store.registry.engines() == []
        waiting = await begin(store, stateless())
        await asyncio.sleep(0.1)
        assert (await store.turns.get(TENANT, waiting)).status is Status.QUEUED
    async with scripted() as engine, worker(store, engine):
        assert (await ended(store, response_id)).outcome.usage.output == 100
        await ended(store, waiting)


async def test_many_answers_at_once_are_all_whole(store):
    """Forty answers over one worker with sixteen places: each tape gapless, each text as when alone."""
    async with scripted() as engine, worker(store, engine):
        alone = await run_turn(store, stateless("Q0"))
        ids = [await begin(store, stateless(f"Q{n % 4}")) for n in range(40)]
        responses = [await ended(store, response_id) for response_id in ids]
        reports = await store.registry.engines()
    assert responses[0].outcome.item.text == alone.outcome.item.text
    assert all(r.outcome.usage.output == 20 for r in responses)
    assert [report.state for report in reports] == [EngineState.READY]


async def test_jobs_that_come_one_by_one_are_claimed_together(store, monkeypatch):
    """The first one at once, what comes right behind it in one claim, until nothing comes any more."""
    monkeypatch.setattr(worker_module, "GATHER", 0.2)
    monkeypatch.setattr(worker_module, "SCAN_INTERVAL", 60.0)
    taken, claim, begun = [], store.turns.claim, asyncio.Event()

    async def counting(*args, **more):
        if any(taken):
            await begun.wait()  # else a machine that is held up would have them in two claims
        found = await claim(*args, **more)
        taken.append(len(found))
        return found

    monkeypatch.setattr(store.turns, "claim", counting)
    async with scripted() as engine, worker(store, engine):
        async with asyncio.timeout(60):
            while len(taken) < 2:  # at the start, and when the subscription stands
                await asyncio.sleep(0.001)
            ids = [await begin(store, stateless("First"))]
            while not any(taken):
                await asyncio.sleep(0.001)
        for number in range(5):
            ids.append(await begin(store, stateless(f"Q{number}")))
            await asyncio.sleep(0.005)
        begun.set()
        for response_id in ids:
            await ended(store, response_id)
        async with asyncio.timeout(60):
            while len(taken) < 5:
                await asyncio.sleep(0.005)
        await asyncio.sleep(2 * worker_module.GATHER)
    assert taken == [0, 0, 1, 5, 0]


async def test_a_place_that_becomes_free_is_filled_at_once(store, monkeypatch):
    """Also where every place was taken, no wake-up comes any more, and the next look is far off."""
    monkeypatch.setattr(worker_module, "SCAN_INTERVAL", 60.0)
    async with scripted() as engine, worker(store, engine, max_running=2):
        ids = [await begin(store, stateless(f"Q{number}")) for number in range(7)]
        for response_id in ids:
            assert (await ended(store, response_id, 30)).outcome.usage.output == 20


async def test_a_store_that_is_away_for_a_while_loses_nothing(store, valkey):
    """Kill -9 of the store in mid-answer: the writer waits, the answer ends whole."""
    async with scripted() as engine, worker(store, engine):
        expected = (await run_turn(store, stateless("Tides", max_output_tokens=100))).outcome.item.text
    async with scripted(tokens_per_second=100) as engine, worker(store, engine, lease=30):
        response_id = await begin(store, stateless("Tides", max_output_tokens=100))
        await wait_for_tokens(store, response_id, 10)
        await asyncio.to_thread(valkey.kill)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(valkey.start)
        response = await ended(store, response_id)
    assert response.outcome.item.text == expected
    assert [r for r in await store.tapes.read(response_id, -1) if isinstance(r.body, Delta)]


async def test_the_same_question_gives_the_same_answer(store):
    """The scripted engine is a pure function of the prompt: a fresh response repeats the text."""
    turn = stateless("Same")
    async with scripted() as engine, worker(store, engine):
        texts = {(await run_turn(store, t)).outcome.item.text for t in (turn, again(turn), again(turn))}
    assert len(texts) == 1
