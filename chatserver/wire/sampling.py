"""Fields that both dialects share: how to choose tokens, and fields that mean nothing here."""

from __future__ import annotations

from typing import Any

from chatserver.wire.fields import Fields, at_most, wrong

MAX_STOPS = 4
MAX_STOP_LENGTH = 1_000
MAX_BIASES = 300
MAX_OUTPUT = 10_000_000
MAX_MODEL = 256
MAX_ANSWERS = 8
"""Answers to one request, at most: each takes a place in the queue and in the engine."""
LEAST_REPETITION = 0.01
"""Logits are divided by it: much less would make them infinite, and an engine would fail with all its answers."""
MAX_LABEL = 1_024
"""Longest user, safety_identifier or prompt_cache_key."""


def sampling(fields: Fields) -> dict[str, Any]:
    """Take the sampling fields and return them as keyword arguments of Params."""
    return {
        "temperature": fields.number("temperature", None, 0, 2),
        "top_p": _share(fields, "top_p"),
        "top_k": fields.whole("top_k", None, -1, 1_000_000),
        "min_p": fields.number("min_p", 0.0, 0, 1),
        "logit_bias": _logit_bias(fields),
        "seed": fields.whole("seed", None, -(2**63), 2**63 - 1),
        "stop": _stops(fields),
        "presence_penalty": fields.number("presence_penalty", 0.0, -2, 2),
        "frequency_penalty": fields.number("frequency_penalty", 0.0, -2, 2),
        "repetition_penalty": fields.number("repetition_penalty", 1.0, LEAST_REPETITION, 2),
        "ignore_end": fields.flag("ignore_eos"),
    }


def answers(fields: Fields) -> int:
    """Take `n`, the number of answers."""
    return fields.whole("n", 1, 1, MAX_ANSWERS)


def labels(fields: Fields) -> dict[str, object]:
    """Take the fields that only label a request, and return those that the answer repeats.

    They are kept as they are and influence nothing: prefixes are cached for the whole tenant anyway.
    """
    found = {}
    for name in ("user", "safety_identifier", "prompt_cache_key"):
        value = fields.text(name, None, longest=MAX_LABEL)
        if value is not None:
            found[name] = value
    return found


def refuse_unsupported(fields: Fields) -> None:
    """Take fields of both dialects whose default means what this server does anyway; refuse other values."""
    fields.inert("service_tier", "auto", "default", why="is not offered: there is one service tier")
    why = "is not supported: prefixes stay cached while there is room"
    fields.inert("prompt_cache_retention", "in_memory", "in-memory", why=why)
    fields.inert("prompt_cache_options")
    fields.inert("moderation")


def stream_options(fields: Fields, *, usage: bool) -> bool:
    """Take `stream_options`; return `include_usage`."""
    value = fields.take("stream_options")
    if value is None:
        return False
    options = Fields(value, fields.path("stream_options"))
    include_usage = options.flag("include_usage") if usage else False
    options.inert("include_obfuscation", False)
    options.done()
    return include_usage


def _share(fields: Fields, name: str) -> float | None:
    value = fields.number(name, None, 0, 1)
    if value == 0:
        raise wrong(fields.path(name), "a number above 0 and up to 1", value)
    return value


def _logit_bias(fields: Fields) -> tuple[tuple[int, float], ...]:
    """Take `logit_bias`, an object of token ids."""
    path, value = fields.path("logit_bias"), fields.take("logit_bias")
    if value is None:
        return ()
    if not isinstance(value, dict) or len(value) > MAX_BIASES:
        raise wrong(path, f"an object of at most {MAX_BIASES} token ids", value)
    inner = Fields(value, path)
    found = []
    for token in sorted(value):
        if not (token.isascii() and token.isdigit() and len(token) <= 9):
            raise wrong(path, "token ids as names", token)
        bias = inner.number(token, 0.0, -100, 100)
        found.append((int(token), bias))
    return tuple(found)


def _stops(fields: Fields) -> tuple[str, ...]:
    value = fields.take("stop")
    path = fields.path("stop")
    stops = [value] if isinstance(value, str) else value
    if stops is None:
        return ()
    if not isinstance(stops, list):
        raise wrong(path, "a string or a list of strings", value, code="invalid_type")
    at_most(path, MAX_STOPS, "strings", stops)
    for index, stop in enumerate(stops):
        if not isinstance(stop, str) or not 0 < len(stop) <= MAX_STOP_LENGTH:
            raise wrong(f"{path}[{index}]", f"a string of 1 to {MAX_STOP_LENGTH} characters", stop)
    return tuple(stops)
