"""SGLang's outputs become chunks: nothing twice, nothing lost, ends and errors behind what came before them."""

import asyncio
import time
from array import array
from types import SimpleNamespace

import pytest

from engine.contract import Chunk, EngineLost, EngineStalled, FinishReason, RequestRefused, TokenLogprob
from engine.stream import Stream
from engine.watchdog import Wait

LENGTH = {"type": "length", "length": 4}


def output(ids, finish=None, cached=7, **more):
    """Return an output for two requests; ours is the second."""
    return SimpleNamespace(
        output_ids=[array("q", [1]), array("q", ids)],
        cached_tokens=[0, cached],
        finished_reasons=[None, finish],
        **more,
    )


@pytest.fixture
def stream():
    return Stream(Wait(patience=5))


async def test_chunks_follow_the_steps(stream):
    """Each step is one chunk if it is taken before the next one."""
    stream.put(output([5]), 1)
    assert await stream.take() == Chunk((5,), 7)
    stream.put(output([6, 8]), 1)
    assert await stream.take() == Chunk((6, 8), 7)
    assert not stream.over
    stream.put(output([2], {"type": "stop", "matched": 2}), 1)
    assert await stream.take() == Chunk((2,), 7, FinishReason.STOP)
    assert stream.over


async def test_what_was_not_taken_in_time_comes_together(stream):
    """In order, with the end."""
    stream.put(output([5]), 1)
    stream.put(output([6, 8]), 1)
    stream.put(output([2], LENGTH), 1)
    assert await stream.take() == Chunk((5, 6, 8, 2), 7, FinishReason.LENGTH)


async def test_a_consumer_that_waits_is_woken(stream):
    """And the watchdog sees since when it has been waiting, or that it does not."""
    taking = asyncio.create_task(stream.take())
    await asyncio.sleep(0)
    assert stream.wait.since is not None
    stream.put(output([5]), 1)
    assert await asyncio.wait_for(taking, 10) == Chunk((5,), 7)
    assert stream.wait.since is None


async def test_an_output_without_tokens_is_no_chunk(stream):
    """A step that adds nothing and ends nothing is not told; but it is a sign of life."""
    taking = asyncio.create_task(stream.take())
    await asyncio.sleep(0)
    stream.wait.since = before = time.monotonic() - 3
    stream.put(output([]), 1)
    await asyncio.sleep(0)
    assert not taking.done() and stream.wait.since > before
    stream.put(output([], LENGTH), 1)
    assert await asyncio.wait_for(taking, 10) == Chunk((), 7, FinishReason.LENGTH)


async def test_a_request_dropped_from_the_queue_keeps_what_it_had(stream):
    """SGLang drops one that had been retracted, too."""
    stream.put(output([5, 6]), 1)
    stream.end({"type": "abort", "message": "Abort in waiting queue"})
    assert await stream.take() == Chunk((5, 6), 7, FinishReason.ABORT)


async def test_a_refusal_is_an_error_and_an_end(stream):
    """The schedulers know nothing of the request any more."""
    stream.put(output([], {"type": "abort", "status_code": 400, "message": "because"}), 1)
    assert stream.over
    with pytest.raises(RequestRefused, match="because"):
        await stream.take()


async def test_errors_come_behind_what_was_there(stream):
    """Only the first one counts, and it is told each time."""
    stream.put(output([5]), 1)
    stream.fail(EngineLost("gone"))
    stream.fail(EngineStalled("late"))
    assert await stream.take() == Chunk((5,), 7)
    for _ in range(2):
        with pytest.raises(EngineLost, match="gone"):
            await stream.take()


async def test_a_failing_stream_wakes_its_consumer(stream):
    """It waits for nothing that cannot come."""
    taking = asyncio.create_task(stream.take())
    await asyncio.sleep(0)
    stream.fail(EngineLost("gone"))
    with pytest.raises(EngineLost):
        await asyncio.wait_for(taking, 10)


async def test_nothing_fails_after_the_end(stream):
    """The answer is whole, whatever happens to the engine."""
    stream.put(output([5], LENGTH), 1)
    stream.fail(EngineLost("gone"))
    assert (await stream.take()).finish is FinishReason.LENGTH


async def test_log_probabilities_stand_beside_their_tokens():
    """The likeliest first, as many as were asked for; none when they were not."""
    values = {
        "output_token_logprobs_val": [[], [-0.5, -1.5]],
        "output_top_logprobs_val": [[], [[-0.5, -2.0], None]],
        "output_top_logprobs_idx": [[], [[5, 9], None]],
    }
    stream = Stream(Wait(patience=5), tops=2)
    stream.put(output([5, 6], **values), 1)
    wanted = TokenLogprob(-0.5, ((5, -0.5), (9, -2.0))), TokenLogprob(-1.5)
    assert await stream.take() == Chunk((5, 6), 7, None, wanted)
    alone = Stream(Wait(patience=5), tops=0)
    alone.put(output([5, 6], **values), 1)
    assert (await alone.take()).logprobs == (TokenLogprob(-0.5), TokenLogprob(-1.5))
