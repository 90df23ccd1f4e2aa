"""Events of a response from the records of its tape.

    record          events, the last one with the record's `last` number
    Accepted        response.created
    Queued          response.queued
    Waiting         response.queue_position      no number: it is not on the tape; a comment line in SSE
    Started         response.in_progress         claim > 1: again, with `recovery: {state: resumed, claim}`
    Interrupted     response.in_progress         with `recovery: {state: interrupted}`: the engine is gone
    ItemOpened      response.output_item.added · response.content_part.added
    Delta           response.output_text.delta   nothing for tokens that completed no character
    ItemClosed      response.output_text.done · response.content_part.done · response.output_item.done
    Ended           response.completed | response.incomplete | response.failed

A stopped answer ends with `response.incomplete` whose `response.status` is `cancelled`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from chatserver.domain.item import Item, ItemStatus, Role
from chatserver.domain.response import Outcome, Response, Status
from chatserver.domain.tape import (
    Accepted,
    Body,
    Delta,
    Ended,
    Interrupted,
    ItemClosed,
    ItemOpened,
    Queued,
    Record,
    Started,
    Waiting,
)
from chatserver.wire.response_objects import message, response_object, text_part

_END_TYPES = {Status.COMPLETED: "response.completed", Status.FAILED: "response.failed"}
DELTA = b"response.output_text.delta"
QUEUE_POSITION = b"response.queue_position"
_SSE_DELTA = b'event: response.output_text.delta\nid: %d\ndata: %b%b,"sequence_number":%d%b\n\n'


def queue_comment(body: Waiting) -> bytes:
    """Return the place in the queue as a bare comment line, which clients skip: see `transports.sse`."""
    return b": queue position %d\n" % (body.ahead + 1)


class Event(NamedTuple):
    """An event, encoded: `data` is the whole JSON object."""

    type: bytes
    sequence_number: int
    data: bytes

    @property
    def sse(self) -> bytes:
        """The event as a server-sent event with id and name."""
        return b"event: %b\nid: %d\ndata: %b\n\n" % self


class ResponseEvents:
    """Encodes the records of one response for one reader. `stream_id` is repeated on every event if given."""

    __slots__ = ("_head", "_response", "_stream_id", "_tail")

    def __init__(self, response: Response, stream_id: str | None = None) -> None:
        self._response = response
        self._stream_id = stream_id
        # The delta is the hot path: all but its text and its number is the same for the whole answer.
        self._head = (
            b'{"type":"response.output_text.delta","item_id":%b,"output_index":0,"content_index":0,'
            b'"logprobs":[],"delta":' % orjson.dumps(response.item_id)
        )
        lane = b"" if stream_id is None else b',"stream_id":%b' % orjson.dumps(stream_id)
        self._tail = lane + b"}"

    def sse(self, record: Record, after: int = -1) -> bytes:
        """Return the events of a record after position `after` as server-sent events, b"" if it has none."""
        body = record.body
        if type(body) is Delta:
            text = body.text
            if not text:
                return b""
            return _SSE_DELTA % (record.last, self._head, encode_text(text), record.last, self._tail)
        if type(body) is Waiting:
            return queue_comment(body)  # an event without a number would surprise strict clients
        return b"".join([event.sse for event in self.encode(record, after)])

    def encode(self, record: Record, after: int = -1) -> list[Event]:
        """Return the events of a record that come after position `after`."""
        body = record.body
        if type(body) is Delta:
            return self._delta(record.last, body.text)
        if type(body) is Waiting:
            return [self._place(record.last, body)]
        events = self._structural(body)
        first = record.last - len(events) + 1
        return [
            self._event(number, event) for number, event in enumerate(events, start=first) if number > after
        ]

    def _delta(self, last: int, text: str) -> list[Event]:
        if not text:
            return []
        data = b'%b%b,"sequence_number":%d%b' % (self._head, encode_text(text), last, self._tail)
        return [Event(DELTA, last, data)]

    def _place(self, last: int, body: Waiting) -> Event:
        lane = {} if self._stream_id is None else {"stream_id": self._stream_id}
        event = {
            "type": QUEUE_POSITION.decode(),
            "response_id": self._response.id,
            "position": body.ahead + 1,
        }
        return Event(QUEUE_POSITION, last, orjson.dumps(event | lane))

    def _event(self, number: int, event: dict[str, Any]) -> Event:
        event["sequence_number"] = number
        if self._stream_id is not None:
            event["stream_id"] = self._stream_id
        return Event(event["type"].encode(), number, orjson.dumps(event))

    def _structural(self, body: Body) -> list[dict[str, Any]]:
        match body:
            case Accepted():
                return [self._state("response.created", Status.QUEUED)]
            case Queued():
                return [self._state("response.queued", Status.QUEUED)]
            case Waiting():
                return []  # not on the tape
            case Started(claim=claim):
                event = self._state("response.in_progress", Status.IN_PROGRESS)
                return [event | {"recovery": {"state": "resumed", "claim": claim}} if claim > 1 else event]
            case Interrupted():
                event = self._state("response.in_progress", Status.IN_PROGRESS)
                return [event | {"recovery": {"state": "interrupted"}}]
            case ItemOpened(item_id=item_id):
                return self._opened(item_id)
            case ItemClosed(item_id=item_id, text=text, complete=complete):
                return self._closed(item_id, text, complete)
            case Ended(outcome=outcome):
                return [self._ended(outcome)]
            case _:
                raise AssertionError(f"deltas are encoded before: {body}")

    def _state(self, kind: str, status: Status) -> dict[str, Any]:
        return {"type": kind, "response": response_object(self._response, status=status)}

    def _opened(self, item_id: str) -> list[dict[str, Any]]:
        item = {"id": item_id, "type": "message", "status": "in_progress", "role": "assistant", "content": []}
        return [
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            {"type": "response.content_part.added", **_place(item_id), "part": text_part("")},
        ]

    def _closed(self, item_id: str, text: str, complete: bool) -> list[dict[str, Any]]:
        status = ItemStatus.COMPLETED if complete else ItemStatus.INCOMPLETE
        item = message(Item(item_id, None, Role.ASSISTANT, text), status=status)
        return [
            {"type": "response.output_text.done", **_place(item_id), "text": text, "logprobs": []},
            {"type": "response.content_part.done", **_place(item_id), "part": text_part(text)},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
        ]

    def _ended(self, outcome: Outcome) -> dict[str, Any]:
        kind = _END_TYPES.get(outcome.status, "response.incomplete")
        return {
            "type": kind,
            "response": response_object(self._response, status=outcome.status, outcome=outcome),
        }


def encode_text(text: str) -> bytes:
    """Return a JSON string. A lone surrogate, which UTF-8 cannot carry, becomes U+FFFD."""
    try:
        return orjson.dumps(text)
    except orjson.JSONEncodeError:
        return orjson.dumps(text.encode("utf-8", "surrogatepass").decode("utf-8", "replace"))


def _place(item_id: str) -> dict[str, Any]:
    return {"item_id": item_id, "output_index": 0, "content_index": 0}
