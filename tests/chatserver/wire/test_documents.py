"""The API's descriptions cannot drift: they are compared with the routes, the parsers and the events."""

from __future__ import annotations

import inspect
import re

from jsonschema import Draft202012Validator
from starlette.routing import Route, WebSocketRoute

from chatserver.transports.http import routes
from chatserver.wire import form, frames, response_events, responses, sampling
from chatserver.wire.documents import asyncapi, openapi, requests


def _routes() -> set[tuple[str, str]]:
    return {
        (re.sub(r":\w+}", "}", route.path), method)
        for route in routes(_door())
        if isinstance(route, Route)
        for method in route.methods - {"HEAD"}
    }


def _door():
    class Door:
        registry = chat = keys = settings = admission = accounts = None

    return Door()


def test_paths_are_the_routes():
    paths = openapi.document()["paths"]
    described = {
        (path, method.upper()) for path, item in paths.items() for method in item if method != "parameters"
    }
    assert described == _routes()
    assert [route.path for route in routes(_door()) if isinstance(route, WebSocketRoute)] == ["/v1/responses"]


def test_schemas_are_schemas():
    document = openapi.document()
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    references = set(re.findall(r"'#/components/schemas/(\w+)'", str(document)))
    assert references <= set(document["components"]["schemas"])


def test_described_fields_are_parsed_fields():
    """Every field that a schema offers is taken by a parser under that name."""
    source = "".join(
        map(
            inspect.getsource,
            (responses, sampling, form, __import__("chatserver.wire.chat_completions").wire.chat_completions),
        )
    )
    for schema in requests.request_schemas().values():
        for name in schema["properties"]:
            assert f'"{name}"' in source, name


def test_frames_and_events_are_described():
    messages = asyncapi.document()["channels"]["responses"]["messages"]
    source = inspect.getsource(response_events) + inspect.getsource(frames)
    for name in set(re.findall(r'"(response\.[a-z_.]+)"', source)) - {"response.steer"}:
        assert name in messages, name
    for message in messages.values():
        Draft202012Validator.check_schema(message["payload"])
