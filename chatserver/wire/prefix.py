"""DeepSeek's chat prefix completion: the last message is the beginning of the answer, which goes on from there.

    messages=[…, {"role": "assistant", "content": "```python\\n", "prefix": true}]

What comes back is what follows the prefix. Nothing is reasoned before it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from chatserver.domain.response import Params
from chatserver.errors import BadRequest
from chatserver.wire.fields import REQUIRED, Fields, wrong
from chatserver.wire.messages import message_text

FIELD = "messages[{}].prefix"


def split_prefix(listed: list[Any]) -> tuple[list[Any], str]:
    """Return the messages without a prefix at their end, and its text, "" if there is none. Raises BadRequest."""
    last = listed[-1]
    if not isinstance(last, dict) or not last.get("prefix"):
        return listed, ""
    at = len(listed) - 1
    field = FIELD.format(at)
    if last["prefix"] is not True:
        raise wrong(field, "true or false", last["prefix"], code="invalid_type")
    if last.get("role") != "assistant":
        raise BadRequest(f"{field}: expected it only on a message of role assistant", param=field)
    if not at:
        raise BadRequest(f"{field}: expected a message before it, got none", param=field)
    fields = Fields(last, f"messages[{at}]")
    fields.take("role")
    fields.take("prefix")
    text = message_text(fields.take("content", REQUIRED), fields.path("content"))
    if not text:
        raise wrong(fields.path("content"), "some text to go on from", text)
    for name, harmless in (("name", None), ("tool_calls", []), ("refusal", None), ("reasoning_content", "")):
        fields.inert(name, harmless, why="is not supported on a prefix")
    fields.done()
    return listed[:-1], text


def prefixed(params: Params, prefix: str, at: int) -> Params:
    """Return the parameters with a prefix, the message at `at`. Raises BadRequest if they cannot be kept behind one."""
    if not prefix:
        return params
    field = FIELD.format(at)
    if params.thinking:
        raise BadRequest(f"{field}: expected thinking to be disabled with it", param=field)
    if params.schema or params.tool_choice not in ("auto", "none"):
        other = "response_format" if params.schema else "tool_choice"
        raise BadRequest(
            f"{field}: expected {other} to leave the form of the answer open, which has begun", param=field
        )
    return replace(params, prefix=prefix, thinking=False)
