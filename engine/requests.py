"""Between the contract's requests and SGLang's: sampling parameters, refusals."""

from __future__ import annotations

import random
from http import HTTPStatus
from typing import Any

from engine.contract import EngineBusy, EngineError, RequestRefused, Sampling


def refusal(reason: dict[str, Any]) -> EngineError | None:
    """Return what an end means for which SGLang gives a status; None: it is an end as asked for."""
    if reason["type"] != "abort" or not reason.get("status_code"):
        return None
    message = reason.get("message") or "the scheduler refused the request"
    if reason["status_code"] == HTTPStatus.BAD_REQUEST:
        return RequestRefused(message)
    if reason["status_code"] == HTTPStatus.SERVICE_UNAVAILABLE:
        return EngineBusy(f"{message} Try again in a moment.")
    return EngineError(message)


def sampling_arguments(sampling: Sampling, end_ids: frozenset[int]) -> dict[str, Any]:
    """Return SGLang's sampling parameters. Every request gets a seed: see `engine.cpu.sampling`."""
    seed = sampling.seed if sampling.seed is not None else random.getrandbits(63)
    return {
        "max_new_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "logit_bias": {str(token): bias for token, bias in sampling.logit_bias} or None,
        "stop": list(sampling.stop) or None,
        "stop_token_ids": None if sampling.ignore_end else sorted(end_ids),
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repetition_penalty": sampling.repetition_penalty,
        "ignore_eos": sampling.ignore_end,
        "sampling_seed": seed,
        "no_stop_trim": True,
        "skip_special_tokens": False,
    }
