"""Events of a response from the records of its tape.

    record          events, the last one with the record's `last` number
    Accepted        response.created
    Queued          response.queued
    Waiting         response.queue_position      no number: it is not on the tape; a comment line in SSE
    Started         response.in_progress         claim > 1: again, with `recovery: {state: resumed, claim}`
    Prefilled       nothing
    Interrupted     response.in_progress         with `recovery: {state: interrupted}`: the engine is gone
    ItemOpened      response.output_item.added · response.content_part.added, which a call has not
    Delta           response.output_text.delta | response.reasoning_text.delta |
                    response.function_call_arguments.delta      nothing for tokens that completed no character
    ItemClosed      response.output_text.done | response.reasoning_text.done · response.content_part.done ·
                    response.output_item.done; of a call response.function_call_arguments.done · …output_item.done
    Ended           response.completed | response.incomplete | response.failed

A stopped answer ends with `response.incomplete` whose `response.status` is `cancelled`.

An event that may not be as large as it is (`most`) leaves out its log-probabilities, and says so by `omitted`; the
response has them. Its text it never leaves out.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

import orjson

from chatserver.domain.ids import part_id
from chatserver.domain.item import PartKind
from chatserver.domain.response import Outcome, Response, Status
from chatserver.domain.tape import (
    Accepted,
    Body,
    Delta,
    Ended,
    Interrupted,
    ItemClosed,
    ItemOpened,
    Prefilled,
    Queued,
    Record,
    Started,
    Waiting,
)
from chatserver.wire.logprobs import logprob_objects
from chatserver.wire.part_events import closed, opened, place
from chatserver.wire.response_objects import response_object

_END_TYPES = {Status.COMPLETED: "response.completed", Status.FAILED: "response.failed"}
DELTA = b"response.output_text.delta"
_DELTAS = {
    PartKind.TEXT: "response.output_text.delta",
    PartKind.REASONING: "response.reasoning_text.delta",
    PartKind.CALL: "response.function_call_arguments.delta",
}
_STATES = {
    Accepted: (b"response.created", Status.QUEUED),
    Queued: (b"response.queued", Status.QUEUED),
    Started: (b"response.in_progress", Status.IN_PROGRESS),
    Interrupted: (b"response.in_progress", Status.IN_PROGRESS),
}
_HAS_STATE = (Accepted, Queued, Started, Interrupted)
SPLIT = 64
"""Tokens in one delta with log-probabilities, which take up to 2 KiB each."""
_OMITTED = {"omitted": ["logprobs"]}
QUEUE_POSITION = b"response.queue_position"
_SSE_DELTA = b'event: %b\nid: %d\ndata: %b%b,"sequence_number":%d%b\n\n'


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
    """Encodes the records of one response for one reader.

    `stream_id` is repeated on every event if given. `most`: bytes of an event with log-probabilities; None: any number.
    """

    __slots__ = ("_begun", "_heads", "_most", "_response", "_stream_id", "_tail")

    def __init__(self, response: Response, stream_id: str | None = None, *, most: int | None = None) -> None:
        self._most = most
        # what it ended with comes from the tape, and a reader may stay for long
        self._response = replace(response, outcome=None) if response.outcome else response
        self._stream_id = stream_id
        # The delta is the hot path: all but its text and its number is the same for the whole part.
        self._heads: dict[tuple[PartKind, int], tuple[bytes, bytes]] = {}
        self._begun: tuple[bytes, bytes] | None = None
        lane = b"" if stream_id is None else b',"stream_id":%b' % orjson.dumps(stream_id)
        self._tail = lane + b"}"

    def sse(self, record: Record, after: int = -1) -> bytes:
        """Return the events of a record after position `after` as server-sent events, b"" if it has none."""
        body = record.body
        if type(body) is Delta and not body.logprobs:
            text = body.text
            if not text:
                return b""
            kind, head = self._head(body)
            return _SSE_DELTA % (kind, record.last, head, encode_text(text), record.last, self._tail)
        if type(body) is Waiting:
            return queue_comment(body)  # an event without a number would surprise strict clients
        return b"".join([event.sse for event in self.encode(record, after)])

    def encode(self, record: Record, after: int = -1) -> list[Event]:
        """Return the events of a record that come after position `after`."""
        body = record.body
        if type(body) is Delta:
            return self._delta(record.last, body)
        if type(body) is Waiting:
            return [self._place(record.last, body)]
        if isinstance(body, _HAS_STATE):
            return [self._state(record.last, body)] if record.last > after else []
        events = self._structural(body)
        first = record.last - len(events) + 1
        return [
            self._event(number, event) for number, event in enumerate(events, start=first) if number > after
        ]

    def _delta(self, last: int, body: Delta) -> list[Event]:
        if body.logprobs:
            return self._likely(last, body)
        text = body.text
        if not text:
            return []
        kind, head = self._head(body)
        return [
            Event(kind, last, b'%b%b,"sequence_number":%d%b' % (head, encode_text(text), last, self._tail))
        ]

    def _likely(self, last: int, body: Delta) -> list[Event]:
        """Return a delta with log-probabilities as several: merged ones would be large."""
        found = []
        for seen in range(0, body.width, SPLIT):
            part = body.part(seen, SPLIT)
            if not part.text:
                continue
            number = last - body.width + seen + part.width
            kind, head = self._head(part)
            event = b'%b%b,"sequence_number":%d%b' % (head, encode_text(part.text), number, self._tail)
            if self._too_large(event):  # a stored answer has all of them at one place
                (bare,) = self._delta(number, replace(part, logprobs=()))
                event = bare.data[:-1] + b"," + orjson.dumps(_OMITTED)[1:]
            found.append(Event(kind, number, event))
        return found

    def _too_large(self, event: bytes) -> bool:
        return self._most is not None and len(event) > self._most

    def _head(self, body: Delta) -> tuple[bytes, bytes]:
        """Return the event type of a part's deltas, and what comes before their text."""
        key = (body.kind, body.index)
        found = self._heads.get(key)
        if found is None or body.logprobs:
            kind = _DELTAS[body.kind]
            fields = {
                "type": kind,
                **place(part_id(self._response.item_id, body.kind.value, body.index), body),
            }
            if body.kind is PartKind.TEXT:
                fields["logprobs"] = logprob_objects(chain.from_iterable(body.logprobs))
            found = (kind.encode(), orjson.dumps(fields)[:-1] + b',"delta":')
            if not body.logprobs:
                self._heads[key] = found
        return found

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
        data = orjson.dumps(event)
        if self._too_large(data) and (bare := _without_logprobs(event)) != event:
            data = orjson.dumps(bare | _OMITTED)
        return Event(event["type"].encode(), number, data)

    def _structural(self, body: Body) -> list[dict[str, Any]]:
        match body:
            case Prefilled():
                return []  # told by Chat Completions only
            case ItemOpened():
                return opened(body)
            case ItemClosed():
                return closed(body)
            case Ended(outcome=outcome):
                return [self._ended(outcome)]
            case _:
                raise AssertionError(f"deltas and states are encoded before: {body}")

    def _state(self, number: int, body: Accepted | Queued | Started | Interrupted) -> Event:
        """Return the event of a state. The first three come together: all but the status is written once for them."""
        kind, status = _STATES[type(body)]
        before, behind = self._begun or self._split()
        self._begun = None if status is Status.IN_PROGRESS else (before, behind)
        return Event(
            kind,
            number,
            b'{"type":"%b","response":%b"%b"%b%b,"sequence_number":%d%b'
            % (kind, before, status.value.encode(), behind, _recovery(body), number, self._tail),
        )

    def _split(self) -> tuple[bytes, bytes]:
        """Return the response's object before and behind its status; what stands before it is our own."""
        before, status, behind = orjson.dumps(
            response_object(self._response, status=Status.QUEUED)
        ).partition(b'"status":"queued"')
        return before + status[:9], behind

    def _ended(self, outcome: Outcome) -> dict[str, Any]:
        kind = _END_TYPES.get(outcome.status, "response.incomplete")
        return {
            "type": kind,
            "response": response_object(self._response, status=outcome.status, outcome=outcome),
        }


def _recovery(body: Body) -> bytes:
    """Return what an event says when an answer goes on, or has to wait for another engine."""
    if isinstance(body, Started) and body.claim > 1:
        return b',"recovery":{"state":"resumed","claim":%d}' % body.claim
    return b',"recovery":{"state":"interrupted"}' if isinstance(body, Interrupted) else b""


def _without_logprobs(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: [] if key == "logprobs" else _without_logprobs(inner) for key, inner in value.items()}
    return [_without_logprobs(inner) for inner in value] if isinstance(value, list) else value


def encode_text(text: str) -> bytes:
    """Return a JSON string. A lone surrogate, which UTF-8 cannot carry, becomes U+FFFD."""
    try:
        return orjson.dumps(text)
    except orjson.JSONEncodeError:
        return orjson.dumps(text.encode("utf-8", "surrogatepass").decode("utf-8", "replace"))
