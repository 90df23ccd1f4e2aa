"""Items as clients see them: each part of an answer is an item of its own.

what is kept                     what is shown
user, system …                   message
assistant: text                  message
assistant: reasoning text call   reasoning · message · function_call
tool                             function_call_output
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chatserver.domain.ids import part_id
from chatserver.domain.item import Item, ItemStatus, Part, PartKind, Role
from chatserver.domain.logprob import Logprob
from chatserver.wire.logprobs import logprob_objects


def item_objects(
    item: Item, *, status: ItemStatus | None = None, logprobs: Sequence[Sequence[Logprob]] = ()
) -> list[dict[str, Any]]:
    """Return what an item consists of, in order; `status` overrides the stored one. `logprobs`: of each part, or ()."""
    state = status or item.status
    if item.role is Role.TOOL:
        return [call_output(item, state)]
    if not item.parts:
        return [message(item, status=state, logprobs=logprobs[0] if logprobs else ())]
    last = len(item.parts) - 1
    return [
        part_object(
            part_id(item.id, part.kind.value, index),
            part,
            state if index == last else ItemStatus.COMPLETED,
            logprobs[index] if logprobs else (),
        )
        for index, part in enumerate(item.parts)
    ]


def part_object(
    identifier: str, part: Part, status: ItemStatus, logprobs: Sequence[Logprob] = ()
) -> dict[str, Any]:
    """Return one part of an answer as an item."""
    if part.kind is PartKind.REASONING:
        return {
            "id": identifier,
            "type": "reasoning",
            "status": status.value,
            "summary": [],
            "content": [content_part(part)],
            "encrypted_content": None,
        }
    if part.kind is PartKind.CALL:
        return {
            "id": identifier,
            "type": "function_call",
            "status": status.value,
            "call_id": part.call_id,
            "name": part.name,
            "arguments": part.text,
        }
    return {
        "id": identifier,
        "type": "message",
        "status": status.value,
        "role": Role.ASSISTANT.value,
        "content": [content_part(part, logprobs)],
    }


def content_part(part: Part, logprobs: Sequence[Logprob] = ()) -> dict[str, Any]:
    """Return the content of a part that has some: a call has none."""
    if part.kind is PartKind.REASONING:
        return {"type": "reasoning_text", "text": part.text}
    return text_part(part.text, logprobs)


def call_output(item: Item, status: ItemStatus) -> dict[str, Any]:
    """Return what a call gave."""
    return {
        "id": item.id,
        "type": "function_call_output",
        "status": status.value,
        "call_id": item.parts[0].call_id if item.parts else "",
        "output": item.text,
    }


def message(
    item: Item, *, status: ItemStatus | None = None, logprobs: Sequence[Logprob] = ()
) -> dict[str, Any]:
    """Return an item as a message: an assistant's text is an output part, all others' an input part."""
    answer = item.role is Role.ASSISTANT
    return {
        "id": item.id,
        "type": "message",
        "status": (status or item.status).value,
        "role": item.role.value,
        "content": [text_part(item.text, logprobs) if answer else input_part(item.text)],
    }


def text_part(text: str, logprobs: Sequence[Logprob] = ()) -> dict[str, Any]:
    """Return a part of an answer."""
    told = logprob_objects(logprobs)
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": told}


def input_part(text: str) -> dict[str, Any]:
    """Return a part of an input message."""
    return {"type": "input_text", "text": text}
