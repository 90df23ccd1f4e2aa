"""What is streamed, as an AsyncAPI document: the WebSocket at /v1/responses, and server-sent events."""

from __future__ import annotations

import re
from functools import cache

from chatserver.wire.documents.closing import CLOSINGS
from chatserver.wire.documents.events import (
    chunk,
    client_frames,
    flat_error,
    server_frames,
    stream_events,
    with_lane,
)
from chatserver.wire.documents.objects import schemas
from chatserver.wire.documents.pieces import Schema

_SSE_FORM = "Each event has its type as `event:`, its number as `id:`, and the object as `data:`."


@cache
def document() -> Schema:
    """Return the document."""
    messages = _messages()
    return {
        "asyncapi": "3.0.0",
        "id": "urn:chatserver",
        "info": {
            "title": "chatserver: events",
            "version": "1",
            "description": (
                "An answer is one numbered tape; every door reads the same one, from any position, and gets every "
                "token once. Cut off, come back with the last number and read on."
            ),
        },
        "defaultContentType": "application/json",
        "servers": {
            "http": {"host": "127.0.0.1:8000", "protocol": "http", "description": "as `make serve` listens"},
            "ws": {"host": "127.0.0.1:8000", "protocol": "ws", "description": "the same"},
        },
        "channels": _channels(),
        "operations": _operations(),
        "components": {
            "messages": messages,
            "schemas": _needed(messages),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _messages() -> dict[str, Schema]:
    """Return all messages; names of those on the WebSocket begin with ws, for a stream_id may be on them."""
    stream = stream_events()
    named = {name: _message(name, *told) for name, told in stream.items()}
    named["error"] = _message("error", "The stream ends; come back behind the number", flat_error())
    named["chunk"] = _message("chunk", "A piece of a chat completion; data: [DONE] is the last line", chunk())
    for name, (when, schema) in stream.items():
        named[f"ws.{name}"] = _message(name, when, with_lane(schema))
    for name, told in {**client_frames(), **server_frames()}.items():
        named[f"ws.{name}"] = _message(name, *told)
    return named


def _message(name: str, summary: str, payload: Schema) -> Schema:
    return {"name": name, "summary": summary, "contentType": "application/json", "payload": payload}


def _channels() -> dict[str, Schema]:
    stream = [*stream_events(), "error"]
    socket = [f"ws.{name}" for name in (*client_frames(), *stream_events(), *server_frames())]
    return {
        "socket": {
            **_channel("ws", "/v1/responses", "The WebSocket", socket),
            "description": (
                "Text frames, one JSON object each. Frames with the same stream_id are answered in order, different "
                "ones at the same time. The key: a header, the subprotocol openai-insecure-api-key.KEY, or the frame "
                "auth within 5 s."
            ),
            "bindings": {"ws": {"method": "GET"}},
            "x-close-codes": [{"code": c.code, "why": c.why, "comeBack": c.come_back} for c in CLOSINGS],
        },
        "newAnswer": {
            **_channel("http", "/v1/responses", "POST with stream: true", stream),
            "description": f"Asks for an answer and brings its events. {_SSE_FORM}",
        },
        "answer": {
            **_channel("http", "/v1/responses/{response_id}", "GET with stream=true", stream),
            "description": (
                f"Brings the events behind Last-Event-ID or starting_after. {_SSE_FORM} 204: there are no more."
            ),
            "parameters": {"response_id": {"description": "from response.created"}},
        },
        "completion": {
            **_channel("http", "/v1/chat/completions", "POST with stream: true, Chat Completions", ["chunk"]),
            "description": "Lines of data: only, without names and numbers, as OpenAI's and DeepSeek's clients expect.",
        },
    }


def _channel(server: str, address: str, title: str, names: list[str]) -> Schema:
    return {
        "address": address,
        "title": title,
        "servers": [{"$ref": f"#/servers/{server}"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
    }


def _operations() -> dict[str, Schema]:
    stream = [*stream_events(), "error"]
    from_server = [f"ws.{name}" for name in (*stream_events(), *server_frames())]
    return {
        "ask": _operation("receive", "socket", "What you send", [f"ws.{name}" for name in client_frames()]),
        "tell": _operation("send", "socket", "What the server sends", from_server),
        "write": _operation("send", "newAnswer", "What the server sends", stream),
        "follow": _operation("send", "answer", "What the server sends", stream),
        "complete": _operation("send", "completion", "What the server sends", ["chunk"]),
    }


def _operation(action: str, channel: str, title: str, names: list[str]) -> Schema:
    return {
        "action": action,
        "title": title,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names],
    }


def _needed(messages: dict[str, Schema]) -> dict[str, Schema]:
    """Return the schemas that the messages refer to, and those refer to in turn."""
    known, found = schemas(), dict[str, Schema]()
    waiting = {*re.findall(r"#/components/schemas/(\w+)", str(messages))}
    while waiting:
        name = waiting.pop()
        found[name] = known[name]
        waiting |= {*re.findall(r"#/components/schemas/(\w+)", str(known[name]))} - set(found)
    return dict(sorted(found.items()))
