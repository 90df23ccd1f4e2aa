"""Frames that clients send on the WebSocket, and the one that only a cancel is answered with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from chatserver.domain.response import Response
from chatserver.errors import BadRequest
from chatserver.wire import responses
from chatserver.wire.commands import CreateResponse
from chatserver.wire.fields import Fields, describe, load
from chatserver.wire.response_objects import response_object

MAX_LANE = 64
"""Longest stream_id."""


@dataclass(frozen=True, slots=True)
class Create:
    """`response.create`: queue a request in its lane. `body`: what all frames with its `key` share."""

    ask: CreateResponse
    stream_id: str | None
    key: str | None
    body: bytes


@dataclass(frozen=True, slots=True)
class Attach:
    """`response.attach`: follow a response after a position."""

    response_id: str
    after: int
    stream_id: str | None


@dataclass(frozen=True, slots=True)
class Cancel:
    """`response.cancel`: stop a response."""

    response_id: str
    stream_id: str | None


@dataclass(frozen=True, slots=True)
class Typing:
    """`input.typing`: a turn of this conversation is likely to come."""

    conversation_id: str


@dataclass(frozen=True, slots=True)
class Subscribe:
    """`conversation.subscribe`: be told of a conversation now and when it changes; `on` False: no longer."""

    conversation_id: str
    stream_id: str | None
    on: bool


@dataclass(frozen=True, slots=True)
class Authenticate:
    """`auth`: the first message of a client that cannot send headers."""

    token: str


Frame = Create | Attach | Cancel | Typing | Subscribe | Authenticate
_LATER = ("response.steer",)


def parse(text: bytes) -> Frame:
    """Check a frame. Raises BadRequest; see `lane_of` for whom to tell."""
    body = load(text)
    kind = body.get("type")
    stream_id = lane_of(body)
    rest = {name: value for name, value in body.items() if name not in ("type", "stream_id")}
    if kind == "response.create":
        key = rest.pop("idempotency_key", None)
        if key is not None and not isinstance(key, str):
            raise BadRequest(
                f"idempotency_key: expected a string, got {describe(key)}", param="idempotency_key"
            )
        return Create(responses.parse(rest), stream_id, key, orjson.dumps(rest, option=orjson.OPT_SORT_KEYS))
    fields = Fields(rest)
    frame: Frame
    if kind == "response.attach":
        frame = Attach(
            fields.text("response_id", longest=responses.MAX_ID),
            fields.whole("starting_after", -1, -1, 2**53),
            stream_id,
        )
    elif kind == "response.cancel":
        frame = Cancel(fields.text("response_id", longest=responses.MAX_ID), stream_id)
    elif kind == "input.typing":
        frame = Typing(fields.text("conversation_id", longest=responses.MAX_ID))
    elif kind in ("conversation.subscribe", "conversation.unsubscribe"):
        name = fields.text("conversation_id", longest=responses.MAX_ID)
        frame = Subscribe(name, stream_id, kind == "conversation.subscribe")
    elif kind == "auth":
        frame = Authenticate(fields.text("token", longest=512, shortest=1))
    elif kind in _LATER:
        raise BadRequest(f"type: {kind} is not supported yet", param="type", code="not_supported")
    else:
        raise BadRequest(
            "type: expected response.create, response.attach, response.cancel, conversation.subscribe, "
            "conversation.unsubscribe, input.typing or auth, "
            f"got {describe(kind)}",
            param="type",
        )
    fields.done()
    return frame


def lane_of(body: dict[str, Any]) -> str | None:
    """Return the checked `stream_id` of a frame."""
    return Fields({"stream_id": body.get("stream_id")}).text("stream_id", None, longest=MAX_LANE, shortest=1)


def stream_id_in(text: bytes) -> str | None:
    """Return the `stream_id` that an error about a refused frame should carry, if it can be read."""
    try:
        return lane_of(load(text))
    except BadRequest:
        return None


def stop_accepted(response: Response, stream_id: str | None) -> bytes:
    """Return our answer to a cancel: an event type of its own, as the tape says when the answer has ended."""
    event: dict[str, object] = {"type": "response.cancel.accepted", "response": response_object(response)}
    if stream_id is not None:
        event["stream_id"] = stream_id
    return orjson.dumps(event)
