"""Messages as clients write them: a string, or a list of text parts; both dialects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chatserver.domain.item import Message, Part, PartKind, Role
from chatserver.errors import BadRequest
from chatserver.wire.commands import Orphan
from chatserver.wire.fields import REQUIRED, Fields, at_most, describe, wrong

MAX_MESSAGES = 10_000
MAX_TEXT = 1_000_000
"""Characters of one message."""
MAX_PARTS = 1_000
MAX_CALLS = 128
"""Calls of one message, and tools of one request."""
MAX_CALL_ID = 128
MAX_NAME = 64
TEXT_PARTS = ("text", "input_text", "output_text")
ROLES = tuple(role.value for role in Role if role not in (Role.SUMMARY, Role.TOOL))


def message_text(
    value: object, path: str, *, empty: bool = False, kinds: tuple[str, ...] = TEXT_PARTS
) -> str:
    """Return the text of a `content` field. `empty`: null is allowed and means no text. `kinds`: of its parts."""
    if isinstance(value, str):
        text = value
    elif isinstance(value, list):
        at_most(path, MAX_PARTS, "parts", value)
        text = "".join(_part(part, f"{path}[{index}]", kinds) for index, part in enumerate(value))
    elif value is None and empty:
        text = ""
    else:
        raise wrong(path, "a string or a list of text parts", value, code="invalid_type")
    at_most(path, MAX_TEXT, "characters", text)
    return text


def role(fields: Fields) -> str:
    """Take the `role` of a message."""
    value = fields.take("role", REQUIRED)
    if value == "function":
        raise BadRequest(
            f"{fields.path('role')}: 'function' messages are not supported; send role tool",
            param=fields.path("role"),
            code="unsupported_value",
        )
    if not isinstance(value, str) or value not in ROLES:
        raise wrong(fields.path("role"), f"one of {', '.join(ROLES)}", value)
    return value


def chat_messages(values: list[Any], path: str = "messages") -> tuple[Message, ...]:
    """Check the messages of the Chat Completions dialect. Raises BadRequest: what a tool gave answers no call."""
    found: list[Message] = []
    called: set[str] = set()
    for index, value in enumerate(values):
        message = chat_message(value, f"{path}[{index}]")
        if (orphan := _orphan(message, called, f"{path}[{index}].tool_call_id")) is not None:
            raise orphan.refusal()
        found.append(message)
    return tuple(found)


def chat_message(value: object, path: str) -> Message:
    """Check one message of the Chat Completions dialect, as sent or as given back from an earlier answer."""
    fields = Fields(value, path)
    if isinstance(value, dict) and value.get("role") == Role.TOOL:
        return _tool_message(fields)
    who = role(fields)
    silent = who == Role.ASSISTANT
    text = message_text(
        fields.take("content", None if silent else REQUIRED), fields.path("content"), empty=silent
    )
    fields.inert("name", why="is not supported: the template has no names")
    parts: list[Part] = []
    if who == Role.ASSISTANT:
        thought = fields.text("reasoning_content", None, longest=MAX_TEXT)
        parts = [Part(PartKind.REASONING, thought)] if thought else []
        parts += [Part(PartKind.TEXT, text)] if text else []
        calls = fields.items("tool_calls", [], most=MAX_CALLS)
        parts += [_call(call, fields.path(f"tool_calls[{i}]")) for i, call in enumerate(calls)]
    for name, harmless in (
        ("tool_calls", []),
        ("function_call", None),
        ("refusal", None),
        ("audio", None),
        ("annotations", []),
        ("reasoning_content", ""),
    ):
        fields.inert(name, harmless)
    fields.inert("prefix", False, why="is supported on the last message only")
    fields.done()
    return Message(who, text, _told_apart(parts))


def _tool_message(fields: Fields) -> Message:
    fields.take("role")
    text = message_text(fields.take("content", REQUIRED), fields.path("content"))
    call_id = fields.text("tool_call_id", longest=MAX_CALL_ID, shortest=1)
    fields.take("name")  # some clients repeat the tool's name; the id says which call it was
    fields.done()
    return Message(Role.TOOL.value, text, (Part(PartKind.OUTPUT, text, call_id),))


def _call(value: object, path: str) -> Part:
    fields = Fields(value, path)
    call_id = fields.text("id", longest=MAX_CALL_ID, shortest=1)
    if fields.take("type", "function") != "function":
        raise BadRequest(f"{path}.type: expected function", param=f"{path}.type", code="unsupported_value")
    fields.take("index")  # of a streamed delta, when clients give back what they put together
    function = Fields(fields.take("function", REQUIRED), f"{path}.function")
    name = function.text("name", longest=MAX_NAME, shortest=1)
    arguments = function.text("arguments", longest=MAX_TEXT)
    function.done()
    fields.done()
    return Part(PartKind.CALL, arguments, call_id, name)


def _orphan(message: Message, called: set[str], field: str) -> Orphan | None:
    """Return what a tool gave if its call is not among `called`; add the calls of the message."""
    ids = {part.call_id for part in message.parts}
    if message.role == Role.TOOL and not ids <= called:
        return Orphan(ids.pop(), field)
    called |= ids
    return None


def input_messages(
    value: object, path: str, *, most: int = MAX_MESSAGES
) -> tuple[tuple[Message, ...], tuple[Orphan, ...]]:
    """Check the `input` of a response: a string, which is one user message, or a list of items.

    Items that are parts of one answer (reasoning, message, calls) become one message again. Returns beside the messages
    what tools gave whose calls are not among the items before: they must be in what the input continues.
    """
    if isinstance(value, str):
        if not value:
            raise wrong(path, "some text", value)
        return (Message(Role.USER.value, message_text(value, path)),), ()
    if not isinstance(value, list):
        raise wrong(path, "a string or a list of messages", value, code="invalid_type")
    at_most(path, most, "messages", value)
    found: list[Message] = []
    answer: list[Part] = []
    called: set[str] = set()
    orphans: list[Orphan] = []
    for index, item in enumerate(value):
        message = _input_item(item, f"{path}[{index}]")
        if (orphan := _orphan(message, called, f"{path}[{index}].call_id")) is not None:
            orphans.append(orphan)
        parts = message.parts or (Part(PartKind.TEXT, message.text),)
        if message.role != Role.ASSISTANT:
            found += [*_answer(answer), message]
            answer = []
        elif answer and _begins(answer, parts[0]):
            found += _answer(answer)
            answer = [*parts]
        else:
            answer += parts
    return (*found, *_answer(answer)), tuple(orphans)


def first_messages(value: object, path: str, *, most: int = MAX_MESSAGES) -> tuple[Message, ...]:
    """Check an input with nothing before it. Raises BadRequest: what a tool gave answers no call."""
    messages, orphans = input_messages(value, path, most=most)
    for orphan in orphans:
        raise orphan.refusal()
    return messages


def _begins(answer: list[Part], part: Part) -> bool:
    """Whether a part begins another answer: reasoning does, and text behind anything but reasoning."""
    if part.kind is PartKind.TEXT:
        return answer[-1].kind is not PartKind.REASONING
    return part.kind is PartKind.REASONING and answer[-1].kind is not PartKind.REASONING


def _answer(parts: list[Part]) -> list[Message]:
    text = "".join(part.text for part in parts if part.kind is PartKind.TEXT)
    return [Message(Role.ASSISTANT.value, text, _told_apart(parts))] if parts else []


def _told_apart(parts: list[Part]) -> tuple[Part, ...]:
    """Return the parts of a message, () if it is text alone."""
    return tuple(parts) if any(part.kind is not PartKind.TEXT for part in parts) else ()


def _input_item(value: object, path: str) -> Message:
    """Check one input item of the Responses dialect: an easy or full message, or an output item given back."""
    fields = Fields(value, path)
    kind = fields.take("type", "message")
    read = _ITEM_READERS.get(kind or "message") if isinstance(kind, str | None) else None
    if read is None:
        raise BadRequest(
            f"{path}.type: items of type {describe(kind)} are not supported; send {', '.join(_ITEM_READERS)}",
            param=f"{path}.type",
            code="unsupported_value",
        )
    message = read(fields)
    # What our own items carry when a client gives them back.
    for name in ("id", "status", "phase", "created_at", "response_id", "parent"):
        fields.take(name)
    fields.done()
    return message


def _message_item(fields: Fields) -> Message:
    who = role(fields)
    return Message(who, message_text(fields.take("content", REQUIRED), fields.path("content")))


def _reasoning_item(fields: Fields) -> Message:
    thought = message_text(
        fields.take("content"), fields.path("content"), empty=True, kinds=("reasoning_text",)
    )
    fields.inert("summary", [], why="is not supported: send the reasoning as content")
    fields.inert("encrypted_content", "", why="is not supported: nothing was encrypted here")
    return Message(Role.ASSISTANT.value, "", (Part(PartKind.REASONING, thought),))


def _call_item(fields: Fields) -> Message:
    call_id = fields.text("call_id", longest=MAX_CALL_ID, shortest=1)
    name = fields.text("name", longest=MAX_NAME, shortest=1)
    arguments = fields.text("arguments", longest=MAX_TEXT)
    fields.inert("namespace")
    return Message(Role.ASSISTANT.value, "", (Part(PartKind.CALL, arguments, call_id, name),))


def _output_item(fields: Fields) -> Message:
    call_id = fields.text("call_id", longest=MAX_CALL_ID, shortest=1)
    text = message_text(fields.take("output", REQUIRED), fields.path("output"))
    return Message(Role.TOOL.value, text, (Part(PartKind.OUTPUT, text, call_id),))


_ITEM_READERS: dict[str, Callable[[Fields], Message]] = {
    "message": _message_item,
    "reasoning": _reasoning_item,
    "function_call": _call_item,
    "function_call_output": _output_item,
}


def _part(value: Any, path: str, kinds: tuple[str, ...]) -> str:
    fields = Fields(value, path)
    kind = fields.take("type")
    if not isinstance(kind, str) or kind not in kinds:
        raise BadRequest(
            f"{path}.type: only text is supported, as {', '.join(kinds)}; got {describe(kind)}",
            param=f"{path}.type",
            code="unsupported_value",
        )
    text = fields.text("text", longest=MAX_TEXT)
    for name in ("annotations", "logprobs", "prompt_cache_breakpoint"):
        fields.take(name)
    fields.done()
    return text
