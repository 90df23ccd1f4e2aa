"""Events of a part of a response: it begins, it is whole. See `response_events`."""

from __future__ import annotations

from typing import Any

from chatserver.domain.item import ItemStatus, Part, PartKind
from chatserver.domain.tape import Delta, ItemClosed, ItemOpened
from chatserver.wire.items import content_part, part_object
from chatserver.wire.logprobs import logprob_objects

_DONES = {
    PartKind.TEXT: "response.output_text.done",
    PartKind.REASONING: "response.reasoning_text.done",
    PartKind.CALL: "response.function_call_arguments.done",
}


def opened(body: ItemOpened) -> list[dict[str, Any]]:
    """Return the events that begin a part."""
    part = Part(body.kind, "", body.call_id, body.name)
    item = part_object(body.item_id, part, ItemStatus.IN_PROGRESS)
    added = {"type": "response.output_item.added", "output_index": body.index, "item": item}
    if body.kind is PartKind.CALL:
        return [added]
    item["content"] = []
    return [
        added,
        {
            "type": "response.content_part.added",
            **place(body.item_id, body),
            "part": content_part(part),
        },
    ]


def closed(body: ItemClosed) -> list[dict[str, Any]]:
    """Return the events that end a part."""
    part = Part(body.kind, body.text, body.call_id, body.name)
    status = ItemStatus.COMPLETED if body.complete else ItemStatus.INCOMPLETE
    at = place(body.item_id, body)
    done = {"type": _DONES[body.kind], **at}
    whole = {
        "type": "response.output_item.done",
        "output_index": body.index,
        "item": part_object(body.item_id, part, status, body.logprobs),
    }
    if body.kind is PartKind.CALL:
        return [{**done, "name": body.name, "arguments": body.text}, whole]
    extra = {"logprobs": logprob_objects(body.logprobs)} if body.kind is PartKind.TEXT else {}
    part_done = {"type": "response.content_part.done", **at, "part": content_part(part, body.logprobs)}
    return [{**done, "text": body.text, **extra}, part_done, whole]


def place(item_id: str, body: Delta | ItemOpened | ItemClosed) -> dict[str, Any]:
    """Return where a part is: all of its events say so."""
    at = {"item_id": item_id, "output_index": body.index}
    return at if body.kind is PartKind.CALL else {**at, "content_index": 0}
