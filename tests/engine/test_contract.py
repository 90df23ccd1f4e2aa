"""The engine contract, on both engines."""

import asyncio
import contextlib
import time
from dataclasses import replace

import pytest

from engine.contract import (
    REQUEST_ID_LENGTH,
    EngineBusy,
    FinishReason,
    GenerateRequest,
    RequestRefused,
    Sampling,
)

from .conftest import new_id, prompt, request, run

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def idle(engine) -> None:
    """Wait until nothing runs or waits."""
    deadline = time.monotonic() + 60
    while True:
        health = await engine.health()
        if health.ok and (health.running, health.queued, health.kv_used) == (0, 0, 0):
            return
        assert time.monotonic() < deadline, health
        await asyncio.sleep(0.02)


async def test_card_is_filled_in(engine):
    """What is served is known after start."""
    card = engine.card
    assert card.context > 8000
    assert card.kv_tokens >= card.context
    assert card.page == 1
    assert card.end_ids
    assert card.template_hash == engine.tokenizer.template_hash


async def test_greedy_answers_repeat(engine):
    """The same prompt gives the same ids, whatever is cached."""
    ids = prompt(engine, "Name three rivers.")
    first, _, finish = await run(engine, request(ids))
    second, cached, _ = await run(engine, request(ids))
    assert first == second
    assert cached == len(ids) - 1
    assert finish in (FinishReason.STOP, FinishReason.LENGTH)


async def test_any_split_continues_the_greedy_answer(engine):
    """Prompt plus the first k ids of an answer give the rest of it: what crash recovery rests on."""
    ids = prompt(engine, "Tell me about the sea.")
    answer, _, _ = await run(engine, request(ids, 20, ignore_end=True))
    for k in (1, 2, 7, 13, 19):
        rest, _, _ = await run(engine, request(ids + answer[:k], 20 - k, ignore_end=True))
        assert rest == answer[k:], k


async def test_any_split_continues_a_seeded_answer(engine):
    """The same holds for sampled answers with a seed, also beside other requests."""
    ids = prompt(engine, "Tell me about the wind.")
    sampling = {"temperature": 0.9, "top_p": 0.95, "seed": 1234, "ignore_end": True}
    answer, _, _ = await run(engine, request(ids, 20, **sampling))
    other = asyncio.create_task(run(engine, request(prompt(engine, "Noise."), 30, temperature=1.0)))
    for k in (1, 6, 19):
        rest, _, _ = await run(engine, request(ids + answer[:k], 20 - k, **sampling))
        assert rest == answer[k:], k
    await other


async def test_seeds_differ(engine):
    """Two seeds give two answers to one prompt."""
    ids = prompt(engine, "Tell me about fire.")
    hot = {"temperature": 1.5, "ignore_end": True}
    answers = [await run(engine, request(ids, 16, seed=seed, **hot)) for seed in (1, 2)]
    assert answers[0][0] != answers[1][0]


async def test_next_turn_hits_the_previous_turn(engine):
    """Everything of the last turn but its last token is served from the cache."""
    tokenizer = engine.tokenizer
    ids = prompt(engine, "What is a mountain?")
    answer, _, _ = await run(engine, request(ids, 40))
    turn = ids + answer + tokenizer.tail(answer) + tokenizer.segment("user", "And a hill?") + tokenizer.cue()
    _, cached, _ = await run(engine, request(turn, 4))
    assert len(ids) + len(answer) - 1 <= cached < len(turn)


async def test_salts_are_separate(engine):
    """One tenant's prefix is invisible to another."""
    ids = prompt(engine, "My secret is a number.")
    await run(engine, request(ids, 2, salt="tenant-a"))
    _, other, _ = await run(engine, request(ids, 2, salt="tenant-b"))
    _, same, _ = await run(engine, request(ids, 2, salt="tenant-a"))
    assert (other, same) == (0, len(ids) - 1)


async def test_abort_ends_with_a_last_chunk_and_keeps_the_kv(engine):
    """A stopped answer yields a final ABORT chunk; continuing it hits what was computed."""
    ids = prompt(engine, "Count without an end.")
    wanted = request(ids, 4000, ignore_end=True)
    emitted: list[int] = []
    finish = None
    async for chunk in engine.generate(wanted):
        emitted += chunk.ids
        finish = chunk.finish
        if len(emitted) >= 5 and finish is None:
            await engine.abort(wanted.request_id)
    assert finish is FinishReason.ABORT
    assert 5 <= len(emitted) < 4000
    _, cached, _ = await run(engine, request((*ids, *emitted, ids[-1]), 1))
    assert cached >= len(ids) + len(emitted) - 2


async def test_aborting_what_does_not_run_is_ignored(engine):
    """Unknown ids, and ids of requests that ended, are no error."""
    wanted = request(prompt(engine, "Short."), 2)
    await run(engine, wanted)
    await engine.abort(wanted.request_id)
    await engine.abort("no such request")


async def test_closing_the_iterator_aborts(engine):
    """A consumer that goes away frees its place and its memory."""
    chunks = engine.generate(request(prompt(engine, "Never finished."), 7000, ignore_end=True))
    async with contextlib.aclosing(chunks):
        await anext(chunks)
    await asyncio.wait_for(idle(engine), 60)


async def test_cancelling_the_consumer_aborts(engine):
    """The same for a task that is cancelled while it waits."""
    started = asyncio.Event()

    async def consume():
        async for _ in engine.generate(request(prompt(engine, "Cancelled."), 7000, ignore_end=True)):
            started.set()

    task = asyncio.create_task(consume())
    await asyncio.wait_for(started.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(idle(engine), 60)


async def test_prefill_makes_the_next_request_hit(engine):
    """A warmed prefix costs the turn that needs it nothing."""
    ids = prompt(engine, "Warm me up, please, before I ask.")
    assert await engine.prefill(new_id(), ids, "warm") == 0
    assert await engine.prefill(new_id(), ids, "warm") == len(ids) - 1
    _, cached, _ = await run(engine, request((*ids, 5, 6), 2, salt="warm"))
    assert cached == len(ids)


async def test_release_frees_what_others_do_not_share(engine):
    """A conversation's prefix goes, its instructions stay with another conversation; the count is exact."""
    await idle(engine)
    head = engine.tokenizer.head("You tell people of trees.")
    mine = (*head, *engine.tokenizer.segment("user", "What is an oak? And how old does one get?"))
    other = (*head, *engine.tokenizer.segment("user", "And a birch?"))
    keep = next(i for i, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b)
    answer, _, _ = await run(engine, request((*mine, *engine.tokenizer.cue()), 8, salt="r", ignore_end=True))
    whole = (*mine, *engine.tokenizer.cue(), *answer[:-1])
    await engine.prefill(new_id(), other, "r")
    await idle(engine)
    before = await engine.health()
    assert await engine.release(whole, keep, "other tenant") == 0
    assert await engine.release(whole, keep, "r") == len(whole) - keep
    after = await engine.health()
    assert before.kv_cached - after.kv_cached == len(whole) - keep
    assert after.kv_leaked == 0
    assert await engine.release(whole, keep, "r") == 0
    assert await engine.prefill(new_id(), other, "r") == len(other) - 1
    assert await engine.prefill(new_id(), whole, "r") == keep


async def test_release_leaves_running_requests_alone(engine):
    """An answer that uses the prefix goes on as if nothing had happened."""
    ids = prompt(engine, "Tell me about the moon, at length.")
    undisturbed, _, _ = await run(engine, request(ids, 24, ignore_end=True))
    chunks = engine.generate(request(ids, 24, ignore_end=True))
    emitted: list[int] = []
    async with contextlib.aclosing(chunks):
        async for chunk in chunks:
            emitted += chunk.ids
            await engine.release(ids, 0)
    assert tuple(emitted) == undisturbed
    await idle(engine)
    assert (await engine.health()).kv_leaked == 0


@pytest.mark.parametrize("keep", [-1, 3])
async def test_release_of_a_wrong_position_is_refused(engine, keep):
    """`keep` is a position in the ids."""
    with pytest.raises(RequestRefused, match="from 0 to 2"):
        await engine.release((5, 6), keep)


async def test_a_storm_of_aborts_disturbs_nobody_and_leaks_nothing(engine):
    """A thousand aborts in about a second: at every age of a request, again and again, and of ids that nobody has."""
    ids = prompt(engine, "Write on while others come and go.")
    alone, _, _ = await run(engine, request(ids, 60, ignore_end=True))
    steady = asyncio.create_task(run(engine, request(ids, 60, ignore_end=True)))
    aborts = 0
    while not steady.done() or aborts < 1000:
        wanted = request(prompt(engine, f"Number {aborts}."), 50, ignore_end=True)
        short = asyncio.create_task(run(engine, wanted))
        for pause in range(12):
            await engine.abort(wanted.request_id)
            await engine.abort(new_id())
            await asyncio.sleep(0.001 * (pause % 3))
            aborts += 2
        _, _, finish = await asyncio.wait_for(short, 30)
        assert finish is FinishReason.ABORT
    emitted, _, _ = await steady
    assert emitted == alone
    await idle(engine)
    health = await engine.health()
    assert health.kv_leaked == 0
    assert 0 < health.kv_cached < health.kv_tokens


async def test_too_long_requests_are_refused_with_counts(engine):
    """Nothing is ever cut silently."""
    window = engine.card.context
    with pytest.raises(RequestRefused, match=rf"{window} tokens"):
        await run(engine, request([5] * window, 1))
    with pytest.raises(RequestRefused, match="100 tokens and an answer of up to 9000"):
        await run(engine, request([5] * 100, 9000))
    with pytest.raises(RequestRefused, match="window"):
        await engine.prefill(new_id(), [5] * (window + 1))


async def test_the_whole_window_can_be_used(engine):
    """A prompt and an answer that fill the window to the last token run to the end."""
    ids = prompt(engine, "Fill the window.")
    engine_window = engine.card.context
    accepted = request(ids, engine_window - len(ids), ignore_end=True)
    chunks = engine.generate(accepted)
    async with contextlib.aclosing(chunks):
        assert (await anext(chunks)).finish is None


@pytest.mark.parametrize("wrong", [(-1,), (10**6,), ()])
async def test_ids_out_of_range_are_refused(engine, wrong):
    """An id that is not in the vocabulary never reaches the scheduler; nor does an empty prompt."""
    with pytest.raises(RequestRefused):
        await run(engine, request(wrong, 4))


async def test_request_ids_have_one_length(engine):
    """SGLang aborts by prefix, so ids of another length are refused; so are ids in use."""
    ids = prompt(engine, "Ids.")
    with pytest.raises(RequestRefused, match=f"{REQUEST_ID_LENGTH}"):
        await run(engine, GenerateRequest("short", ids, Sampling(max_tokens=2)))
    running = request(ids, 4000, ignore_end=True)
    chunks = engine.generate(running)
    async with contextlib.aclosing(chunks):
        await anext(chunks)
        with pytest.raises(RequestRefused, match="already"):
            await run(engine, running)


async def test_stop_strings_stop_but_are_not_trimmed(engine):
    """The scheduler stops at a stop string; cutting the text is the server's business."""
    ids = prompt(engine, "Say a sentence about stones.")
    answer, _, _ = await run(engine, request(ids, 30, ignore_end=True))
    stop = engine.tokenizer.decode(answer[6:8])
    emitted, _, finish = await run(engine, request(ids, 30, ignore_end=True, stop=(stop,)))
    assert finish is FinishReason.STOP
    assert stop in engine.tokenizer.decode(emitted)
    assert emitted == answer[: len(emitted)]
    assert len(emitted) <= 8


async def test_end_tokens_are_emitted_and_end(engine):
    """An answer that ends by itself carries its end token; one that may not end has exactly max_tokens."""
    ids = prompt(engine, "What is the capital of France?")
    answer, _, finish = await run(engine, request(ids, 600))
    assert finish is FinishReason.STOP
    assert answer[-1] in engine.card.end_ids
    assert not engine.card.end_ids & set(answer[:-1])
    endless, _, finish = await run(engine, request(ids, len(answer) + 3, ignore_end=True))
    assert (finish, len(endless)) == (FinishReason.LENGTH, len(answer) + 3)


async def test_log_probabilities_come_with_their_tokens(engine):
    """One for each token, cached prefix or not; a greedy token is the likeliest; without asking there are none."""
    ids = prompt(engine, "How likely is this?")
    for wanted in (0, 3):
        asked = replace(request(ids, 12, ignore_end=True), logprobs=wanted)
        chunks = [chunk async for chunk in engine.generate(asked)]
        assert sum(len(chunk.ids) for chunk in chunks) == 12
        for chunk in chunks:
            assert len(chunk.logprobs) == len(chunk.ids)
            for token, logprob in zip(chunk.ids, chunk.logprobs, strict=True):
                assert logprob.value <= 0
                assert len(logprob.likeliest) <= wanted
                assert not wanted or logprob.likeliest[0] == (token, logprob.value)
                values = [value for _, value in logprob.likeliest]
                assert values == sorted(values, reverse=True)
    plain = [chunk async for chunk in engine.generate(request(ids, 3))]
    assert not any(chunk.logprobs for chunk in plain)
    assert plain[0].cached == len(ids) - 1
    with pytest.raises(RequestRefused, match="from 0 to 20, got 21"):
        await run(engine, replace(request(ids, 1), logprobs=21))


async def test_parallel_requests_do_not_mix(engine):
    """Eight requests at once answer as each does alone."""
    prompts = [prompt(engine, f"Write about the number {i}.") for i in range(8)]
    alone = [await run(engine, request(ids, 10)) for ids in prompts[:2]]
    together = await asyncio.gather(*(run(engine, request(ids, 10)) for ids in prompts))
    assert [ids for ids, _, _ in together[:2]] == [ids for ids, _, _ in alone]
    assert all(1 <= len(ids) <= 10 for ids, _, _ in together)


async def test_a_full_queue_says_busy(engine):
    """Beyond what may run and wait, a request is refused at once and the others go on."""
    prompts = [prompt(engine, f"Busy {i}.") for i in range(64)]  # 16 run, 16 wait
    results = await asyncio.gather(
        *(run(engine, request(ids, 6, ignore_end=True)) for ids in prompts), return_exceptions=True
    )
    busy = [r for r in results if isinstance(r, EngineBusy)]
    assert busy
    assert all(len(r[0]) == 6 for r in results if not isinstance(r, EngineBusy))
    assert len(results) - len(busy) >= 16


async def test_health_counts_and_comes_back_to_nothing(engine):
    """Running requests show; an idle engine uses no KV, cached prefixes do not count."""
    await idle(engine)
    chunks = engine.generate(request(prompt(engine, "Be counted."), 4000, ignore_end=True))
    async with contextlib.aclosing(chunks):
        for _ in range(3):
            await anext(chunks)
        health = await engine.health()
        assert health.ok
        assert health.running == 1
        assert health.kv_used > 0
    await idle(engine)
    assert (await engine.health()).kv_tokens == engine.card.kv_tokens


async def test_pieces_of_an_answer_add_up(engine):
    """Decoding chunk by chunk gives the text of the whole."""
    ids = prompt(engine, "Use some emoji, please: 🙂")
    answer, _, _ = await run(engine, request(ids, 40, temperature=1.0, seed=3))
    decoder = engine.tokenizer.decoder()
    text = "".join([decoder.push(i) for i in answer]) + decoder.flush()
    assert text == engine.tokenizer.decode(answer)
