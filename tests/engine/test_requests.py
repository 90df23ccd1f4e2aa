"""SGLang's outputs become chunks: nothing twice, nothing lost, refusals as errors."""

import pytest

from engine.contract import Chunk, EngineBusy, EngineError, FinishReason, RequestRefused, Sampling
from engine.requests import Progress, raise_refusal, sampling_arguments


def output(ids, total, finish=None, **meta):
    """Return one output as SGLang's tokenizer manager gives it."""
    return {
        "output_ids": list(ids),
        "meta_info": {"completion_tokens": total, "finish_reason": finish, **meta},
    }


def test_chunks_follow_the_steps():
    """The cached count stays what the first output said."""
    progress = Progress()
    outputs = [
        output([5], 1, cached_tokens=7),
        output([6, 8], 3, cached_tokens=7),
        output([2], 4, {"type": "stop", "matched": 2}, cached_tokens=7),
    ]
    assert [progress.chunk(o) for o in outputs] == [
        Chunk((5,), 7),
        Chunk((6, 8), 7),
        Chunk((2,), 7, FinishReason.STOP),
    ]


def test_an_abort_in_the_queue_repeats_nothing():
    """SGLang gives the last id once more when it drops a request that had been retracted."""
    progress = Progress()
    progress.chunk(output([5, 6], 2, cached_tokens=3))
    last = progress.chunk(output([6], 2, {"type": "abort", "message": "Abort in waiting queue"}))
    assert last == Chunk((), 3, FinishReason.ABORT)


def test_an_output_without_tokens_is_no_chunk():
    """A step that adds nothing and ends nothing is not told."""
    assert Progress().chunk(output([], 0, cached_tokens=0)) is None


@pytest.mark.parametrize(("status", "error"), [(400, RequestRefused), (503, EngineBusy), (500, EngineError)])
def test_aborts_with_a_status_are_errors(status, error):
    """A full queue is busy, a bad request refused; only an asked-for abort is a finish."""
    finish = {"type": "abort", "status_code": status, "message": "because"}
    with pytest.raises(error, match="because"):
        raise_refusal({"finish_reason": finish})
    raise_refusal({"finish_reason": {"type": "abort", "status_code": None, "message": "asked for"}})


def test_every_request_has_a_seed():
    """Without a seed two requests get two; with one it is passed on."""
    first, second = (sampling_arguments(Sampling(max_tokens=1), frozenset({2})) for _ in range(2))
    assert first["sampling_seed"] != second["sampling_seed"]
    assert sampling_arguments(Sampling(max_tokens=1, seed=9), frozenset({2}))["sampling_seed"] == 9
    assert first["stop_token_ids"] == [2]
    assert (
        sampling_arguments(Sampling(max_tokens=1, ignore_end=True), frozenset({2}))["stop_token_ids"] is None
    )
