"""The API's descriptions cannot drift: they are compared with the routes, the parsers, the events and the tables."""

from __future__ import annotations

import inspect
import math
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from starlette.routing import Route, WebSocketRoute

from chatserver import errors
from chatserver.transports import frame_socket, websocket
from chatserver.transports.http import routes
from chatserver.wire import (
    chat_completions,
    conversations,
    fields,
    frames,
    limits,
    messages,
    part_events,
    response_events,
    responses,
)
from chatserver.wire.documents import asyncapi, events, guide, openapi, requests
from chatserver.wire.documents.closing import CLOSINGS
from tests.deploy import readme_table


def _routes() -> set[tuple[str, str]]:
    return {
        (re.sub(r":\w+}", "}", route.path), method)
        for route in routes(_door())
        if isinstance(route, Route)
        for method in route.methods - {"HEAD"}
    }


def _door():
    class Door:
        registry = chat = keys = settings = admission = accounts = pulse = None

    return Door()


def test_paths_are_the_routes():
    paths = openapi.document()["paths"]
    described = {
        (path, method.upper()) for path, item in paths.items() for method in item if method != "parameters"
    }
    assert described == _routes()
    assert [route.path for route in routes(_door()) if isinstance(route, WebSocketRoute)] == ["/v1/responses"]
    operations = [op for item in paths.values() for method, op in item.items() if method != "parameters"]
    assert len({operation["operationId"] for operation in operations}) == len(operations)


@pytest.mark.parametrize("document", [openapi.document(), asyncapi.document()], ids=["openapi", "asyncapi"])
def test_schemas_are_schemas_and_references_lead_somewhere(document):
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for message in document["components"].get("messages", {}).values():
        Draft202012Validator.check_schema(message["payload"])
    for reference in set(re.findall(r"'\$ref': '#/([^']+)'", str(document))):
        place = document
        for name in reference.split("/"):
            place = place[name]


def test_described_fields_are_what_the_parsers_check(monkeypatch):
    """Every field that a parser takes is described, with its type and bounds, or refused in every form that matters."""
    taken = _recording(monkeypatch)
    documents = requests.request_schemas()
    bodies = {
        "ResponseRequest": [
            (responses.parse, {"input": "Hi", "store": True}),
            (responses.parse, {"continue": "resp_1"}),
        ],
        "ChatCompletionRequest": [
            (chat_completions.parse, {"model": "m", "messages": [{"role": "user", "content": "Hi"}]})
        ],
    }
    for name, parsed in bodies.items():
        taken.clear()
        for parse, body in parsed:
            parse(body)
        properties = documents[name]["properties"]
        assert set(properties) == set(taken) - {
            field for field, (kind, *_) in taken.items() if kind == "inert"
        }
        for field, (kind, *bounds) in taken.items():
            if kind in _TYPES:
                assert _agrees(properties[field], kind, bounds), (
                    name,
                    field,
                    kind,
                    bounds,
                    properties[field],
                )


_TYPES = {"text": "string", "flag": "boolean", "whole": "integer", "number": "number", "items": "array"}


def _recording(monkeypatch) -> dict[str, tuple[Any, ...]]:
    """Note what is taken out of a body itself: (kind, lowest, highest)."""
    taken: dict[str, tuple[Any, ...]] = {}

    def note(kind: str, bounds):
        real = getattr(fields.Fields, kind)

        def wrapper(self, name, *arguments, **named):
            if not self._path and name not in taken:
                taken[name] = (kind, *bounds(arguments, named))
            return real(self, name, *arguments, **named)

        monkeypatch.setattr(fields.Fields, kind, wrapper)

    note("text", lambda a, n: (n.get("shortest", 0), n.get("longest", 512)))
    note("whole", lambda a, n: a[1:3])
    note("number", lambda a, n: a[1:3])
    note("flag", lambda a, n: ())
    note("items", lambda a, n: (n["most"],))
    note("inert", lambda a, n: ())
    real_take = fields.Fields.take

    def take(self, name, default=None):
        if not self._path:
            taken.setdefault(name, ("any",))
        return real_take(self, name, default)

    monkeypatch.setattr(fields.Fields, "take", take)
    return taken


def _agrees(schema: dict[str, Any], kind: str, bounds: list[Any]) -> bool:
    if schema.get("type") != _TYPES[kind]:
        return False
    if kind == "text":
        return (schema.get("minLength", 0), schema.get("maxLength")) == tuple(bounds)
    if kind == "items":
        return schema.get("maxItems") == bounds[0]
    if kind in ("whole", "number"):
        low = schema.get("minimum", schema.get("exclusiveMinimum", -math.inf))
        return [low, schema.get("maximum", math.inf)] == bounds
    return True


def test_frames_and_events_are_described():
    """Every type that the sources name, and no other."""
    feed = (conversations.changed_event, conversations.gone_event, limits.updated_event)
    source = "".join(
        map(inspect.getsource, (response_events, part_events, frames, websocket, frame_socket, *feed))
    )
    named = set(re.findall(r'"((?:response|input|auth|conversation|rate_limits)\.[a-z_.]+)"', source))
    named |= set(re.findall(r'"type":"([a-z_.]+)"', source)) | {"auth", "error"}
    later = {"response.steer", "conversation.subscribe"} & set(frames._LATER)
    described = {*events.stream_events(), *events.client_frames(), *events.server_frames()}
    assert named - later == described


def test_client_frames_are_what_the_parser_takes():
    """Each described frame, filled with examples, is taken; what is not required may be missing."""
    examples = {"type": "string", "response_id": "resp_1", "conversation_id": "conv_1", "token": "secret"}
    more = {"response.create": {"input": "Hi", "idempotency_key": "k", "stream_id": "a"}}
    more["response.attach"] = {"starting_after": 4, "stream_id": "a"}
    assert more.keys() <= events.client_frames().keys()
    for name, (_, schema) in events.client_frames().items():
        required = {field: examples[field] for field in schema["required"] if field != "type"}
        for extra in ({}, more.get(name, {})):
            frame = {**required, **extra, "type": name}
            if name == "response.create":
                frame["input"] = "Hi"
            assert set(frame) <= set(schema["properties"])
            frames.parse(fields.orjson.dumps(frame))


def test_close_codes_are_told():
    """Every code that errors and connections close with, what the rule says of it, and the same in the guide."""
    kinds, todo = [], [errors.ChatServerError]
    while todo:
        kind = todo.pop()
        todo.extend(kind.__subclasses__())
        kinds.append(kind)
    used = {kind.close_code for kind in kinds} - {errors.Unavailable.close_code}  # sent as 1013
    assert {closing.code for closing in CLOSINGS} == used | set(frame_socket._COME_BACK.values()) | {
        1000,
        1007,
        1008,
        1009,
        1011,
    }
    for code, _, come_back in CLOSINGS:
        never = re.search(r"\bno\b|\bnot\b|another key", come_back) is not None
        assert code < 3000 or never == (code >= 4500), code
    told = re.findall(r"^\| (\d{4}) \| (.*) \| (.*) \|$", guide.SOURCE.read_text("utf-8"), re.MULTILINE)
    assert [(int(code), why, come_back) for code, why, come_back in told] == list(CLOSINGS)


def test_the_guide_tells_the_errors_of_the_readme():
    rows = r"^\| (\d{3}) \| `([a-z_]+)` \|"
    told = re.findall(rows, guide.SOURCE.read_text("utf-8"), re.MULTILINE)
    assert told == re.findall(rows, readme_table.README.read_text("utf-8"), re.MULTILINE)


def test_a_history_with_calls_is_as_described():
    """Reasoning, calls and what they gave, in both dialects: the parser and the schema take the same."""
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    chat = [
        {"role": "assistant", "content": None, "reasoning_content": "Hm.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "2"},
    ]
    items = [
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm."}], "summary": []},
        {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "2"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "2"}]},
    ]
    known = openapi.document()
    for name, values in (("ChatMessage", chat), ("InputItem", items)):
        check = Draft202012Validator(
            {"$ref": f"#/components/schemas/{name}", "components": known["components"]}
        )
        for value in values:
            check.validate(value)
    assert len(messages.chat_messages(chat)) == 2
    assert len(messages.first_messages(items, "input")) == 3
    assert not check.is_valid({"type": "function_call_output", "output": "2"})
