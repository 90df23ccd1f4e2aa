"""Idle work: what is made, when it gives way, and what waits for it."""

import asyncio
from dataclasses import replace
from itertools import pairwise

import pytest

from chatserver.domain.response import Truncation
from chatserver.service.engine import prefixes as module
from chatserver.service.engine.chunks import MIN_CHUNK
from chatserver.service.engine.prefixes import Prefixes
from chatserver.service.engine.wanted import MAX_WANTED, Prefix
from engine.contract import EngineLost, GenerateRequest, Sampling
from tests.chatserver.service.engine_role import (
    at_rest,
    ended,
    first_turn,
    next_turn,
    run_turn,
    scripted,
    stateless,
    tokens_on_tape,
    worker,
)

IDS = tuple(range(40, 140)) * 10
SALT = "tests"


@pytest.fixture
async def idle():
    """Idle work over a scripted engine whose prefills take 20 ms a request."""
    async with scripted(ttft_ms=20) as engine:
        made = Prefixes(engine)
        task = asyncio.create_task(made.run())
        yield made, engine
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def settled(made: Prefixes) -> None:
    async with asyncio.timeout(60):
        while not made.idle:
            await asyncio.sleep(0.005)


async def begun(made: Prefixes) -> None:
    """Wait until a chunk of a prefill is under way."""
    async with asyncio.timeout(60):
        while made._running is None or not made._running.request_id:
            await asyncio.sleep(0.001)


async def cached(engine, ids) -> int:
    return await engine.prefill("f" * 32, ids, SALT)


async def test_a_wanted_prefix_is_made_in_chunks(idle):
    """All of it is in the cache afterwards, and known to be."""
    made, engine = idle
    made.want(Prefix("c", SALT, IDS))
    await settled(made)
    assert await cached(engine, IDS) == len(IDS) - 1
    assert made.warm(SALT, "c", (*IDS, 7)) == len(IDS)
    assert made.counts.computed >= len(IDS)
    made.want(Prefix("c", SALT, IDS))
    assert made.idle


async def test_a_turn_of_another_conversation_stops_it_within_a_step(idle):
    """The chunk under way is aborted, nothing begins while the turn runs, and the rest is made afterwards."""
    made, engine = idle
    dropped, abort = [], engine.abort

    async def note(request_id):
        dropped.append(request_id)
        await abort(request_id)

    engine.abort = note
    made.want(Prefix("c", SALT, IDS))
    await begun(made)
    chunk = made._running.request_id
    made.hold("turn of other", "other")
    async with asyncio.timeout(60):
        while made._running is not None:
            await asyncio.sleep(0)
    assert dropped == [chunk]
    before = made.counts.computed
    await asyncio.sleep(0.1)
    assert (await engine.health()).running == 0
    assert made.counts.computed == before
    made.release("turn of other")
    await settled(made)
    assert await cached(engine, IDS) == len(IDS) - 1


async def test_a_turn_that_needs_it_waits_for_it(idle):
    """Its own turn does not stop a prefill, nor does another's while somebody waits; it goes on when all is there."""
    made, engine = idle
    made.want(Prefix("c", SALT, IDS))
    await begun(made)
    made.hold("turn of c", "c")
    waiting = asyncio.create_task(made.wait_for("c", SALT, (*IDS, 1, 2), asyncio.Event()))
    await asyncio.sleep(0)
    made.hold("turn of other", "other")
    async with asyncio.timeout(60):
        await waiting
    assert await cached(engine, IDS) == len(IDS) - 1
    assert made.counts.waited_for == 1


async def test_a_stop_ends_the_wait(idle):
    """Whoever stops a turn that waits does not wait for the prefill."""
    made, _ = idle
    over = asyncio.Event()
    made.want(Prefix("c", SALT, IDS))
    await begun(made)
    made.hold("turn of c", "c")
    waiting = asyncio.create_task(made.wait_for("c", SALT, (*IDS, 1), over))
    await asyncio.sleep(0.005)
    over.set()
    async with asyncio.timeout(60):
        await waiting
        while made._running is not None:
            await asyncio.sleep(0)
    assert made.counts.finished == 0


async def test_a_prefix_that_its_turn_does_not_begin_with_is_dropped(idle):
    """An edit further up: what was being made is of no use, and does not come back."""
    made, _ = idle
    made.want(Prefix("c", SALT, IDS))
    await begun(made)
    made.hold("turn of c", "c")
    await made.wait_for("c", SALT, (1, 2, 3), asyncio.Event())
    made.release("turn of c")
    await settled(made)
    assert made.counts.finished == 0


async def test_what_waits_is_bounded_and_one_a_conversation(idle):
    """A newer prefix replaces the conversation's older one; past the bound the oldest is dropped."""
    made, _ = idle
    made.hold("turn", None)
    for number in range(3 * MAX_WANTED):
        made.want(Prefix(f"c{number % (2 * MAX_WANTED)}", SALT, (number, number + 1)))
    assert len(made._wanted) == MAX_WANTED


async def test_an_engine_that_is_lost_ends_the_work():
    """The worker, whose task this is, must hear of it."""
    async with scripted(ttft_ms=50) as engine:
        made = Prefixes(engine)
        task = asyncio.create_task(made.run())
        made.want(Prefix("c", SALT, IDS))
        await begun(made)
        await engine.close()
        with pytest.raises(EngineLost):
            await asyncio.wait_for(task, 60)


async def test_a_prefill_without_an_answer_is_given_up(idle, monkeypatch):
    """The time-out drops the prefix; the next one is made."""
    made, _ = idle
    monkeypatch.setattr(module, "CHUNK_TIMEOUT", 0.001)
    made.want(Prefix("c", SALT, IDS))
    await settled(made)
    monkeypatch.setattr(module, "CHUNK_TIMEOUT", 60.0)
    made.want(Prefix("d", SALT, IDS))
    await settled(made)
    assert made.counts.finished == 1


@pytest.mark.parametrize("more", [0, 24])
async def test_no_turn_pays_for_a_truncation(store, more):
    """Past the window, the turn after a cut prefills its new message and no more: the rest was made in idle time.

    `more`: tokens by which every second answer may be longer; there is room for them where the message is short.
    """
    worst, cuts = 0, 0
    ask = [{"truncation": Truncation.AUTO, "max_output_tokens": 32 + more * (n % 2)} for n in range(41)]
    async with scripted(context=1024) as engine, worker(store, engine) as role:
        response = await run_turn(store, first_turn("x " * 20, **ask.pop()))
        for number in range(40):
            await at_rest(role)
            before = response.outcome.ledger
            response = await run_turn(store, next_turn(response, f"{number} " + "y " * 20, **ask.pop()))
            usage, ledger = response.outcome.usage, response.outcome.ledger
            new = len(engine.tokenizer.segment("user", f"{number} " + "y " * 20)) + len(
                engine.tokenizer.cue()
            )
            tail = len(engine.tokenizer.tail((1,))) + 1
            worst = max(worst, usage.prompt - usage.cached - new - tail)
            assert ledger.cut == before.next_cut, "the cut moves when an answer ends"
            cuts += ledger.cut != before.cut
    assert cuts >= 4
    assert worst <= 0


@pytest.mark.parametrize("company", [True, False])
async def test_in_company_a_cut_is_made_turns_before_it_moves(store, company):
    """Bit by bit, none of it twice; alone nothing is made that may turn out to be in vain."""
    auto = {"truncation": Truncation.AUTO}
    async with scripted(context=2048) as engine, worker(store, engine) as role:
        response = await run_turn(store, first_turn("x " * 20, **auto))
        told, made = None, []
        while response.outcome.ledger.next_cut is None:
            told = response.outcome.ledger.ahead
            if company:
                await run_turn(store, first_turn("Somebody else's", **auto))
            response = await run_turn(store, next_turn(response, "y " * 20, **auto))
            await at_rest(role)
            known = role._parts.prefixes.known(SALT, response.conversation)
            made += [max((len(it.ids) for it in known if it.cut == told), default=0)] if told else []
        computed = role._parts.prefixes.counts.computed
    assert response.outcome.ledger.next_cut == told and len(made) > 2
    assert computed <= made[-1], "what is there stays there when a turn ends"
    if company:
        assert made == sorted(set(made)) and made[0] > 0
    else:
        assert not any(made[:-1]) and made[-1] > 0  # only when it has moved


async def test_each_branch_keeps_its_own_cut(store):
    """Regenerating the answer that moved the cut sends what was sent the first time: all of it from the cache."""
    async with scripted(context=1024) as engine, worker(store, engine) as role:
        earlier = response = await run_turn(store, first_turn("x " * 20, truncation=Truncation.AUTO))
        while response.outcome.ledger.next_cut == response.outcome.ledger.cut:
            earlier = response
            response = await run_turn(store, next_turn(response, "y " * 20, truncation=Truncation.AUTO))
        await at_rest(role)
        again = next_turn(earlier, "", truncation=Truncation.AUTO)
        again = replace(
            again,
            items=(),
            exclusive=False,
            response=replace(again.response, parent=response.inputs[-1], inputs=()),
        )
        other = await run_turn(store, again)
        assert other.outcome.ledger.cut == response.outcome.ledger.cut
        assert other.outcome.ledger.prompt_hash == response.outcome.ledger.prompt_hash
        assert other.outcome.usage.cached == other.outcome.usage.prompt - 1


async def test_real_work_goes_first(store):
    """With prefixes waiting all the time: from when a turn is handed to the engine to its first token none begins."""
    async with scripted(ttft_ms=30) as engine, worker(store, engine) as role:
        happened, prefill, generate = [], engine.prefill, engine.generate

        async def note_prefill(*asked):
            happened.append("prefill")
            return await prefill(*asked)

        async def note_generate(request):
            happened.append("turn")
            async for chunk in generate(request):
                happened.append("token")
                yield chunk

        engine.prefill, engine.generate = note_prefill, note_generate
        for number in range(5):
            ids = tuple(100 + (number + i) % 1000 for i in range(3000))
            role._parts.prefixes.want(Prefix(f"c{number}", SALT, ids, turns=1))
            await begun(role._parts.prefixes)
            await run_turn(store, stateless(f"Q{number}"))
        assert happened.count("turn") == 5 and happened.count("prefill") > 5
        for at, what in enumerate(happened):
            if what == "turn":
                assert happened[at + 1] == "token"


async def test_what_may_never_be_needed_waits_for_a_quiet_engine(store):
    """While an answer is being written nothing is made for somebody who only opened a conversation."""
    async with scripted(tokens_per_second=100) as engine, worker(store, engine) as role:
        turn = stateless(max_output_tokens=200)
        response_id = (await store.turns.begin(turn, queue_bound=9)).response_id
        async with asyncio.timeout(60):
            while not await tokens_on_tape(store, response_id):
                await asyncio.sleep(0.005)
        role._parts.prefixes.want(Prefix("c", SALT, IDS))
        most = 0
        while not (await store.turns.get("tests", response_id)).status.ended:
            most = max(most, (await engine.health()).running)
        assert most == 1
        await ended(store, response_id)
        await at_rest(role)
        assert role._parts.prefixes.counts.finished == 1


async def test_what_is_due_is_made_beside_answers_a_little_at_a_time(idle):
    """Never while a turn waits for its first token; beside answers in the smallest chunks, a quarter of the time."""
    made, engine = idle
    asked, prefill = [], engine.prefill

    async def note(request_id, ids, salt=""):
        began = asyncio.get_running_loop().time()
        found = await prefill(request_id, ids, salt)
        asked.append((began, asyncio.get_running_loop().time(), len(ids)))
        return found

    engine.prefill = note
    made.hold("turn", "other")
    made.want(Prefix("c", SALT, IDS[: 6 * MIN_CHUNK], turns=1))
    await asyncio.sleep(0.1)
    assert not asked, "a turn waits for its first token"
    made.answering("turn")
    made.answering("turn")
    await settled(made)
    assert [length for _, _, length in asked] == [n * MIN_CHUNK for n in range(1, 7)]
    for (began, over, _), (again, _, _) in pairwise(asked):
        assert again - over >= 0.9 * (over - began) * (1 / module.SHARE - 1)
    assert made.counts.finished == 1


async def test_prefixes_of_other_salts_are_cold(idle):
    """What one tenant computed is not warm for another."""
    made, engine = idle
    made.computed("a", "c", IDS)
    assert made.warm("b", "c", IDS) == 0
    assert made.warm("a", "fork", IDS) == len(IDS)
    sampling = Sampling(max_tokens=1, temperature=0.0)
    async for chunk in engine.generate(GenerateRequest("e" * 32, IDS, sampling, "b")):
        assert chunk.cached == 0
