"""What a request says about the form of its answer: reasoning, in both dialects."""

from __future__ import annotations

from typing import Any

from chatserver.errors import BadRequest
from chatserver.wire.fields import Fields, wrong

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""`none` is without reasoning. The others are one and the same: the models served here know no levels."""


def chat_form(fields: Fields) -> dict[str, Any]:
    """Take the fields of the Chat Completions dialect; return keyword arguments of Params."""
    effort = _effort(fields, "reasoning_effort")
    thinking = _thinking(fields)
    if thinking is not None and effort is not None and thinking is not (effort != "none"):
        raise BadRequest(
            f"reasoning_effort: expected it to agree with thinking, got {effort!r}", param="reasoning_effort"
        )
    return {"thinking": thinking if effort is None else effort != "none"}


def response_form(fields: Fields) -> tuple[dict[str, Any], dict[str, object]]:
    """Take the fields of the Responses dialect; return keyword arguments of Params, and what is echoed."""
    value = fields.take("reasoning")
    if value is None:
        return {}, {}
    inner = Fields(value, "reasoning")
    effort = _effort(inner, "effort")
    for name in ("summary", "generate_summary", "context", "mode"):
        inner.inert(name, why="is not supported: the reasoning itself is shown")
    inner.done()
    if effort is None:
        return {}, {}
    return {"thinking": effort != "none"}, {"reasoning": {"effort": effort, "summary": None}}


def _effort(fields: Fields, name: str) -> str | None:
    value = fields.take(name)
    if value is not None and (not isinstance(value, str) or value not in EFFORTS):
        raise wrong(fields.path(name), f"one of {', '.join(EFFORTS)}", value)
    return value


def _thinking(fields: Fields) -> bool | None:
    """Take DeepSeek's `thinking`."""
    value = fields.take("thinking")
    if value is None:
        return None
    inner = Fields(value, "thinking")
    kind = inner.take("type")
    inner.done()
    if kind not in ("enabled", "disabled"):
        raise wrong("thinking.type", "enabled or disabled", kind)
    return kind == "enabled"
