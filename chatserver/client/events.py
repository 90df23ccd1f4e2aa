"""What happens to an answer, as typed values.

Every event has a `position`: the number to resume behind, as in `client.resume(response_id, after=event.position)`.
Kinds that this client does not know come as `Other`: a newer server breaks nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chatserver.client.errors import ProtocolError
from chatserver.client.results import Result, result_of


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `position`: its number on the answer's tape, or that of the last one before it."""

    position: int


@dataclass(frozen=True, slots=True)
class Created(Event):
    """The answer exists: from here on it goes on without its client."""

    response_id: str
    conversation_id: str | None


@dataclass(frozen=True, slots=True)
class Queued(Event):
    """It waits for an engine."""


@dataclass(frozen=True, slots=True)
class QueuePlace(Event):
    """It waits, and `place` is 1 for the next one; not on the tape."""

    place: int


@dataclass(frozen=True, slots=True)
class Started(Event):
    """An engine has begun with it. `claim` above 1: another engine goes on where one was lost."""

    claim: int


@dataclass(frozen=True, slots=True)
class Interrupted(Event):
    """The engine was lost; the answer waits for another one and then goes on."""


@dataclass(frozen=True, slots=True)
class ItemAdded(Event):
    """An item of the output begins: a message, reasoning, a tool call. `item` is the API's object."""

    item: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TextDelta(Event):
    """More of the answer's text."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta(Event):
    """More of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta(Event):
    """More of the JSON arguments of a tool call, whose item is `item_id`."""

    item_id: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ItemDone(Event):
    """An item of the output is whole. `item` is the API's object."""

    item: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """The end: completed, incomplete, cancelled or failed; `result.status` says which."""

    result: Result


@dataclass(frozen=True, slots=True)
class Other(Event):
    """Something that this client has no type for."""

    type: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Lost(Event):
    """The stream broke; the next attempt to take it up begins in `wait` seconds. Not on the tape."""

    reason: str
    wait: float


ENDS = ("response.completed", "response.incomplete", "response.failed")


def event_of(data: dict[str, Any]) -> Event:
    """Return the typed form of one of the API's event objects. Raises ProtocolError."""
    try:
        return _typed(str(data["type"]), int(data["sequence_number"]), data)
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"an event that could not be read: {type(error).__name__}: {error}") from error


def _typed(kind: str, position: int, data: dict[str, Any]) -> Event:
    if kind == "response.output_text.delta":
        return TextDelta(position, str(data["delta"]))
    if kind == "response.reasoning_text.delta":
        return ReasoningDelta(position, str(data["delta"]))
    if kind == "response.function_call_arguments.delta":
        return ToolCallDelta(position, str(data["item_id"]), str(data["delta"]))
    if kind == "response.created":
        conversation = data["response"].get("conversation")
        return Created(position, str(data["response"]["id"]), conversation and str(conversation["id"]))
    if kind == "response.queued":
        return Queued(position)
    if kind == "response.in_progress":
        recovery = data.get("recovery") or {}
        if recovery.get("state") == "interrupted":
            return Interrupted(position)
        return Started(position, int(recovery.get("claim", 1)))
    if kind in ("response.output_item.added", "response.output_item.done"):
        return (ItemAdded if kind.endswith("added") else ItemDone)(position, dict(data["item"]))
    if kind in ENDS:
        return Finished(position, result_of(data["response"]))
    return Other(position, kind, data)
