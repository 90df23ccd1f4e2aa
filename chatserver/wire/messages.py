"""Messages as clients write them: a string, or a list of text parts; both dialects."""

from __future__ import annotations

from typing import Any

from chatserver.domain.item import Role
from chatserver.errors import BadRequest
from chatserver.wire.commands import Message
from chatserver.wire.fields import Fields, describe, wrong

MAX_MESSAGES = 10_000
MAX_TEXT = 1_000_000
"""Characters of one message."""
MAX_PARTS = 1_000
TEXT_PARTS = ("text", "input_text", "output_text")
ROLES = tuple(role.value for role in Role if role is not Role.SUMMARY)


def message_text(value: object, path: str, *, empty: bool = False) -> str:
    """Return the text of a `content` field. `empty`: null is allowed and means no text."""
    if isinstance(value, str):
        text = value
    elif isinstance(value, list):
        if len(value) > MAX_PARTS:
            raise wrong(path, f"at most {MAX_PARTS} parts", value, code="array_above_max_length")
        text = "".join(_part(part, f"{path}[{index}]") for index, part in enumerate(value))
    elif value is None and empty:
        text = ""
    else:
        raise wrong(path, "a string or a list of text parts", value, code="invalid_type")
    if len(text) > MAX_TEXT:
        raise BadRequest(
            f"{path}: expected at most {MAX_TEXT} characters, got {len(text)}",
            param=path,
            code="string_above_max_length",
        )
    return text


def role(fields: Fields) -> str:
    """Take the `role` of a message."""
    value = fields.take("role")
    if value in ("tool", "function"):
        raise BadRequest(
            f"{fields.path('role')}: {value!r} messages are not supported",
            param=fields.path("role"),
            code="unsupported_value",
        )
    if not isinstance(value, str) or value not in ROLES:
        raise wrong(fields.path("role"), f"one of {', '.join(ROLES)}", value)
    return value


def chat_message(value: object, path: str) -> Message:
    """Check one message of the Chat Completions dialect, as sent or as given back from an earlier answer."""
    fields = Fields(value, path)
    who = role(fields)
    text = message_text(fields.take("content"), fields.path("content"), empty=who == Role.ASSISTANT)
    fields.inert("name", why="is not supported: the template has no names")
    for name, harmless in (
        ("tool_calls", []),
        ("function_call", None),
        ("refusal", None),
        ("audio", None),
        ("annotations", []),
        ("reasoning_content", ""),
        ("prefix", False),
    ):
        fields.inert(name, harmless)
    fields.done()
    return who, text


def input_message(value: object, path: str) -> Message:
    """Check one input item of the Responses dialect: an easy or full message, or an output item given back."""
    fields = Fields(value, path)
    kind = fields.take("type", "message")
    if kind is not None and kind != "message":
        raise BadRequest(
            f"{path}.type: items of type {describe(kind)} are not supported; send messages",
            param=f"{path}.type",
            code="unsupported_value",
        )
    who = role(fields)
    text = message_text(fields.take("content"), fields.path("content"))
    # What our own items carry when a client gives them back.
    for name in ("id", "status", "phase", "created_at", "response_id", "parent"):
        fields.take(name)
    fields.done()
    return who, text


def input_messages(value: object, path: str, *, most: int = MAX_MESSAGES) -> tuple[Message, ...]:
    """Check the `input` of a response: a string, which is one user message, or a list of messages."""
    if isinstance(value, str):
        if not value:
            raise wrong(path, "some text", value)
        return ((Role.USER.value, message_text(value, path)),)
    if not isinstance(value, list):
        raise wrong(path, "a string or a list of messages", value, code="invalid_type")
    if len(value) > most:
        raise BadRequest(
            f"{path}: expected at most {most} messages, got {len(value)}",
            param=path,
            code="array_above_max_length",
        )
    return tuple(input_message(item, f"{path}[{index}]") for index, item in enumerate(value))


def _part(value: Any, path: str) -> str:
    fields = Fields(value, path)
    kind = fields.take("type")
    if not isinstance(kind, str) or kind not in TEXT_PARTS:
        raise BadRequest(
            f"{path}.type: only text is supported, as {', '.join(TEXT_PARTS)}; got {describe(kind)}",
            param=f"{path}.type",
            code="unsupported_value",
        )
    text = fields.text("text", longest=MAX_TEXT)
    for name in ("annotations", "logprobs", "prompt_cache_breakpoint"):
        fields.take(name)
    fields.done()
    return text
