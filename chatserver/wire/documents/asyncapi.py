"""The WebSocket at /v1/responses as an AsyncAPI document; its frames are those of `frames.py`."""

from __future__ import annotations

from functools import cache
from typing import Any

from chatserver.wire.documents.pieces import TEXT, WHOLE, Schema
from chatserver.wire.documents.requests import request_schemas

EVENTS = (
    "response.created",
    "response.queued",
    "response.queue_position",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.reasoning_text.delta",
    "response.reasoning_text.done",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
    "response.incomplete",
    "response.failed",
    "response.cancel.accepted",
    "auth.accepted",
    "error",
)
"""Types of the frames that the server sends."""


@cache
def document() -> Schema:
    """Return the document."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "chatserver: responses over a WebSocket",
            "version": "1",
            "description": (
                "Text frames, one JSON object each. Frames with the same stream_id are answered in order, different "
                "ones at the same time; it is repeated on every event. Close code 1012 or 1013: come back and attach "
                "with starting_after. 1008: too much at once. 4408: idle for too long; "
                "come back when there is something to send. 4500 to 4999: do not come back as you are."
            ),
        },
        "channels": {
            "responses": {"address": "/v1/responses", "messages": _client_frames() | _server_frames()}
        },
        "operations": {
            "send": {
                "action": "receive",
                "channel": {"$ref": "#/channels/responses"},
                "messages": [{"$ref": f"#/channels/responses/messages/{name}"} for name in _client_frames()],
            },
            "events": {
                "action": "send",
                "channel": {"$ref": "#/channels/responses"},
                "messages": [{"$ref": f"#/channels/responses/messages/{name}"} for name in _server_frames()],
            },
        },
    }


def _client_frames() -> dict[str, Any]:
    create = request_schemas()["ResponseRequest"]["properties"] | {"idempotency_key": TEXT}
    return {
        "response.create": _message("response.create", create),
        "response.attach": _message(
            "response.attach", {"response_id": TEXT, "starting_after": WHOLE}, "response_id"
        ),
        "response.cancel": _message("response.cancel", {"response_id": TEXT}, "response_id"),
        "conversation.subscribe": _message(
            "conversation.subscribe", {"conversation_id": TEXT}, "conversation_id"
        ),
        "conversation.unsubscribe": _message(
            "conversation.unsubscribe", {"conversation_id": TEXT}, "conversation_id"
        ),
        "input.typing": _message("input.typing", {"conversation_id": TEXT}, "conversation_id"),
        "auth": _message("auth", {"token": TEXT}, "token"),
    }


def _server_frames() -> dict[str, Any]:
    frames = {name: _message(name, {"sequence_number": WHOLE}) for name in EVENTS}
    # not on the tape, so without a number
    place = _message(
        "response.queue_position", {"response_id": TEXT, "position": WHOLE}, "response_id", "position"
    )
    changed = _message(
        "conversation.changed",
        {
            "conversation": {
                "type": "object",
                "description": "the conversation as it is now; `running` names its responses that have not ended",
            }
        },
        "conversation",
    )
    deleted = _message("conversation.deleted", {"conversation_id": TEXT}, "conversation_id")
    apart = {
        "response.queue_position": place,
        "conversation.changed": changed,
        "conversation.deleted": deleted,
    }
    return frames | apart


def _message(kind: str, properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {
        "name": kind,
        "payload": {
            "type": "object",
            "properties": {
                "type": {"const": kind},
                "stream_id": {"type": "string", "maxLength": 64},
                **properties,
            },
            "required": ["type", *required],
        },
    }
