"""Log-probabilities: how they are asked for, and as JSON values. Both dialects have the same ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from chatserver.domain.logprob import MOST, Logprob
from chatserver.errors import BadRequest
from chatserver.wire.fields import Fields

INCLUDE = "message.output_text.logprobs"
"""What `include` has to say for a response to have log-probabilities."""


def chat_logprobs(fields: Fields) -> int | None:
    """Take `logprobs` and `top_logprobs` of Chat Completions; None: none are asked for. Raises BadRequest."""
    return _asked(fields, "logprobs to be true", wanted=fields.flag("logprobs"))


def response_logprobs(fields: Fields, include: Iterable[object]) -> int | None:
    """Take `top_logprobs` of Responses; None: `include` asks for none. Raises BadRequest."""
    return _asked(fields, f"include to have {INCLUDE}", wanted=INCLUDE in include)


def logprob_objects(logprobs: Iterable[Logprob]) -> list[dict[str, Any]]:
    """Return log-probabilities in order."""
    return [
        _token(logprob.token, logprob.value) | {"top_logprobs": [_token(*top) for top in logprob.likeliest]}
        for logprob in logprobs
    ]


def choice_logprobs(logprobs: Iterable[Logprob]) -> dict[str, Any]:
    """Return `logprobs` of a choice: of its content; nothing is ever refused."""
    return {"content": logprob_objects(logprobs), "refusal": None}


def _asked(fields: Fields, expected: str, *, wanted: bool) -> int | None:
    top = fields.whole("top_logprobs", 0, 0, MOST)
    if top and not wanted:
        raise BadRequest(f"top_logprobs: expected {expected} with it", param="top_logprobs")
    return top if wanted else None


def _token(token: str, value: float) -> dict[str, Any]:
    """Return one token; a part of a character is written as OpenAI does, `\\xe2\\x82`."""
    data = token.encode("latin-1")
    return {"token": data.decode("utf-8", "backslashreplace"), "bytes": list(data), "logprob": value}
