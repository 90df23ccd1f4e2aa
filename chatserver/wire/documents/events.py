"""Schemas of what is streamed: events of a response, chunks of a chat completion, frames of the WebSocket."""

from __future__ import annotations

from chatserver.wire.documents.pieces import (
    TEXT,
    WHOLE,
    Schema,
    choice_logprobs,
    or_null,
    record,
    ref,
    token_logprobs,
)
from chatserver.wire.documents.requests import request_schemas
from chatserver.wire.frames import MAX_LANE
from chatserver.wire.responses import MAX_ID

LANE: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_LANE,
    "description": "frames with the same one are answered in order; repeated on every event",
}
_ID: Schema = {"type": "string", "maxLength": MAX_ID}
_CALL = {"item_id": TEXT, "output_index": WHOLE}
_PLACE = {**_CALL, "content_index": WHOLE}
_RESPONSE = {"response": ref("Response")}
_RATE = record(
    "name limit remaining reset_seconds",
    name={"type": "string", "enum": ["requests", "tokens"]},
    limit=WHOLE,
    remaining=WHOLE,
    reset_seconds={"type": "number", "description": "until it is full again"},
)
_ITEM = {"output_index": WHOLE, "item": ref("Item")}
_OMITTED: Schema = {
    "omitted": {
        "const": ["logprobs"],
        "description": "on the WebSocket only: with them the event would be over 1 MiB; the response has them",
    }
}


def stream_events() -> dict[str, tuple[str, Schema]]:
    """Return what is on the tape of an answer, by type: when it comes, and its fields."""
    recovery = record(
        "state", state={"type": "string", "enum": ["interrupted", "resumed"]}, claim={**WHOLE, "minimum": 2}
    )
    part = {"oneOf": [ref("OutputText"), ref("ReasoningText")]}
    events = {
        "response.created": ("The answer exists: from here on it goes on without you", _RESPONSE),
        "response.queued": ("It waits for an engine", _RESPONSE),
        "response.in_progress": (
            "An engine has begun; with `recovery` (an extension): its engine was lost, or another one goes on",
            {**_RESPONSE, "recovery": recovery},
        ),
        "response.output_item.added": ("An item of the answer begins", _ITEM),
        "response.content_part.added": (
            "A part of a message, or of reasoning, begins",
            {**_PLACE, "part": part},
        ),
        "response.output_text.delta": (
            "More text, a token or several",
            {**_PLACE, "delta": TEXT, "logprobs": token_logprobs(), **_OMITTED},
        ),
        "response.output_text.done": (
            "The text is whole",
            {**_PLACE, "text": TEXT, "logprobs": token_logprobs(), **_OMITTED},
        ),
        "response.reasoning_text.delta": ("More of what the model thinks", {**_PLACE, "delta": TEXT}),
        "response.reasoning_text.done": ("The reasoning is whole", {**_PLACE, "text": TEXT}),
        "response.function_call_arguments.delta": ("More of a call's arguments", {**_CALL, "delta": TEXT}),
        "response.function_call_arguments.done": (
            "The call is whole",
            {**_CALL, "name": TEXT, "arguments": {**TEXT, "description": "JSON as the model wrote it"}},
        ),
        "response.content_part.done": ("The part is whole", {**_PLACE, "part": part, **_OMITTED}),
        "response.output_item.done": ("The item is whole", {**_ITEM, **_OMITTED}),
        "response.completed": (
            "The end: usage, ledger and timing are in the response",
            {**_RESPONSE, **_OMITTED},
        ),
        "response.incomplete": (
            "The end: cut off at its bound, or stopped (`response.status` is cancelled)",
            {**_RESPONSE, **_OMITTED},
        ),
        "response.failed": ("The end: `response.error` says why", {**_RESPONSE, **_OMITTED}),
    }
    return {name: (when, _numbered(name, fields)) for name, (when, fields) in events.items()}


def flat_error() -> Schema:
    """Return the event that ends a stream of events when something goes wrong with the stream."""
    return record(
        "type code message param sequence_number",
        type={"const": "error"},
        code=TEXT,
        message=TEXT,
        param=or_null(TEXT),
        sequence_number=WHOLE,
    )


def chunk() -> Schema:
    """Return the schema of a chunk of a chat completion."""
    begun = record("", name=TEXT, arguments=TEXT)
    call = record("index function", index=WHOLE, id=TEXT, type={"const": "function"}, function=begun)
    delta = record(
        "",
        role=TEXT,
        content=or_null(TEXT),
        reasoning_content=or_null(TEXT),
        tool_calls={"type": "array", "items": call},
        refusal={"type": "null"},
    )
    choice = record(
        "index delta finish_reason",
        index=WHOLE,
        delta=delta,
        logprobs=or_null(choice_logprobs()),
        finish_reason=or_null({"type": "string", "enum": ["stop", "length", "tool_calls"]}),
    )
    return record(
        "id object created model choices",
        id={**TEXT, "description": "the same on all chunks"},
        object={"const": "chat.completion.chunk"},
        created=WHOLE,
        model=TEXT,
        choices={"type": "array", "items": choice},
        usage=or_null(ref("ChatUsage")),
        timing=ref("Timing"),
        service_tier=TEXT,
        system_fingerprint=or_null(TEXT),
    )


def client_frames() -> dict[str, tuple[str, Schema]]:
    """Return what clients send on the WebSocket, by type."""
    create = request_schemas()["ResponseRequest"]
    key = {
        **TEXT,
        "maxLength": 255,
        "description": "sent again with the same one, a request attaches to the first",
    }
    return {
        "response.create": (
            "Ask for an answer",
            _frame("response.create", {**create["properties"], "idempotency_key": key}, lane=True),
        ),
        "response.attach": (
            "Follow an answer behind a position; -1 or nothing: from its beginning",
            _frame(
                "response.attach",
                {"response_id": _ID, "starting_after": {**WHOLE, "minimum": -1}},
                "response_id",
                lane=True,
            ),
        ),
        "response.cancel": (
            "Stop an answer and keep what was written",
            _frame("response.cancel", {"response_id": _ID}, "response_id", lane=True),
        ),
        "conversation.subscribe": (
            "Be told how a conversation stands, now and after each change: what keeps two tabs in step",
            _frame("conversation.subscribe", {"conversation_id": _ID}, "conversation_id", lane=True),
        ),
        "conversation.unsubscribe": (
            "Be told of it no more",
            _frame("conversation.unsubscribe", {"conversation_id": _ID}, "conversation_id", lane=True),
        ),
        "input.typing": (
            "A turn of this conversation is about to come: its prefix is put into the cache",
            _frame("input.typing", {"conversation_id": _ID}, "conversation_id"),
        ),
        "auth": (
            "The key, as the first frame and within 5 s, of a client that cannot send headers",
            _frame("auth", {"token": {"type": "string", "minLength": 1, "maxLength": 512}}, "token"),
        ),
    }


def server_frames() -> dict[str, tuple[str, Schema]]:
    """Return what only the WebSocket brings, by type."""
    headers = {"type": "object", "additionalProperties": TEXT, "description": "as on an HTTP answer"}
    error = record(
        "message type param code",
        message=TEXT,
        type=TEXT,
        param=or_null(TEXT),
        code=or_null(TEXT),
        headers=headers,
    )
    return {
        "response.queue_position": (
            "The place of a waiting answer, 1 is next (an extension; not on the tape, so without a number)",
            _frame(
                "response.queue_position",
                {"response_id": TEXT, "position": {**WHOLE, "minimum": 1}},
                "response_id",
                "position",
                lane=True,
            ),
        ),
        "rate_limits.updated": (
            "What the key has left, behind the first event of each answer (an extension, as OpenAI's realtime API has "
            "it; only for keys with limits). What the answer may use is taken already",
            _frame(
                "rate_limits.updated",
                {"rate_limits": {"type": "array", "items": _RATE}},
                "rate_limits",
                lane=True,
            ),
        ),
        "response.cancel.accepted": (
            "The answer to response.cancel; the tape says when the answer has ended",
            _frame("response.cancel.accepted", _RESPONSE, "response", lane=True),
        ),
        "conversation.changed": (
            "How a conversation that was subscribed to stands; `running` names its responses that have not ended",
            _frame("conversation.changed", {"conversation": ref("Conversation")}, "conversation", lane=True),
        ),
        "conversation.deleted": (
            "It was deleted: the subscription ends",
            _frame("conversation.deleted", {"conversation_id": TEXT}, "conversation_id", lane=True),
        ),
        "auth.accepted": (
            "The key is good; `headers` are its limits",
            _frame("auth.accepted", {"headers": headers}),
        ),
        "error": (
            "Something was refused, or the connection ends",
            _frame("error", {"status": WHOLE, "error": error}, "status", "error", lane=True),
        ),
    }


def with_lane(schema: Schema) -> Schema:
    """Return an event as the WebSocket brings it."""
    return {**schema, "properties": {**schema["properties"], "stream_id": LANE}}


def _numbered(kind: str, fields: Schema) -> Schema:
    number = {**WHOLE, "minimum": 0, "description": "the position on the tape: grows, may skip"}
    required = " ".join(
        ["type", "sequence_number", *(name for name in fields if name not in ("recovery", "omitted"))]
    )
    return record(required, type={"const": kind}, sequence_number=number, **fields)


def _frame(kind: str, fields: Schema, *required: str, lane: bool = False) -> Schema:
    more = {"stream_id": LANE} if lane else {}
    return record(" ".join(["type", *required]), type={"const": kind}, **fields, **more)
