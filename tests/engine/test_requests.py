"""The contract's requests in SGLang's words, and its refusals in the contract's."""

import pytest

from engine.contract import EngineBusy, EngineError, RequestRefused, Sampling
from engine.requests import refusal, sampling_arguments


@pytest.mark.parametrize(("status", "error"), [(400, RequestRefused), (503, EngineBusy), (500, EngineError)])
def test_aborts_with_a_status_are_errors(status, error):
    """A full queue is busy, a bad request refused; only an asked-for abort is a finish."""
    finish = {"type": "abort", "status_code": status, "message": "because"}
    found = refusal(finish)
    assert type(found) is error and "because" in str(found)
    assert refusal({"type": "abort", "status_code": None, "message": "asked for"}) is None
    assert refusal({"type": "length", "length": 3}) is None


def test_every_request_has_a_seed():
    """Without a seed two requests get two; with one it is passed on."""
    first, second = (sampling_arguments(Sampling(max_tokens=1), frozenset({2})) for _ in range(2))
    assert first["sampling_seed"] != second["sampling_seed"]
    assert sampling_arguments(Sampling(max_tokens=1, seed=9), frozenset({2}))["sampling_seed"] == 9
    assert first["stop_token_ids"] == [2]
    assert (
        sampling_arguments(Sampling(max_tokens=1, ignore_end=True), frozenset({2}))["stop_token_ids"] is None
    )
