"""Between the contract's requests and SGLang's: sampling parameters, outputs to chunks."""

from __future__ import annotations

import random
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from engine.contract import (
    Chunk,
    EngineBusy,
    EngineError,
    FinishReason,
    RequestRefused,
    Sampling,
    TokenLogprob,
)


@dataclass(slots=True)
class Progress:
    """Turns SGLang's outputs of one request into chunks."""

    emitted: int = 0
    cached: int = 0

    def chunk(self, output: dict[str, Any]) -> Chunk | None:
        """Return what `output` adds, None if nothing. Raises EngineBusy, RequestRefused. Modifies self."""
        meta = output["meta_info"]
        raise_refusal(meta)
        ids = output.get("output_ids") or ()
        # A request dropped from the queue repeats its last id; the count tells what is new.
        fresh = meta.get("completion_tokens", self.emitted + len(ids)) - self.emitted
        new = tuple(ids[-fresh:]) if fresh > 0 else ()
        self.emitted += len(new)
        self.cached = meta.get("cached_tokens", self.cached)
        finish, logprobs = meta["finish_reason"], _logprobs(meta, len(new))
        if finish is None:
            return Chunk(new, self.cached, logprobs=logprobs) if new else None
        return Chunk(new, self.cached, FinishReason(finish["type"]), logprobs)


def _logprobs(meta: dict[str, Any], count: int) -> tuple[TokenLogprob, ...]:
    """Return the log-probabilities of the last `count` tokens, none if SGLang was not asked for them."""
    if not count or not (own := meta.get("output_token_logprobs")):
        return ()
    tops: list[Any] = meta.get("output_top_logprobs") or [()] * len(own)
    return tuple(
        TokenLogprob(value, tuple((token, likely) for likely, token, _ in top or ()))
        for (value, _, _), top in zip(own[-count:], tops[-count:], strict=True)
    )


def raise_refusal(meta: dict[str, Any]) -> None:
    """Raise what an abort with a status means; an abort without one was asked for."""
    finish = meta.get("finish_reason")
    if not finish or finish["type"] != "abort" or not finish.get("status_code"):
        return
    message = finish.get("message") or "the scheduler refused the request"
    if finish["status_code"] == HTTPStatus.BAD_REQUEST:
        raise RequestRefused(message)
    if finish["status_code"] == HTTPStatus.SERVICE_UNAVAILABLE:
        raise EngineBusy(f"{message} Try again in a moment.")
    raise EngineError(message)


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
