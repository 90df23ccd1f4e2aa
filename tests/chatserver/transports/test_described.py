"""What is answered is what is described: every route, event and frame, unknown fields included."""

from __future__ import annotations

import copy
import json
import re

import pytest
from jsonschema import Draft202012Validator
from websockets.asyncio.client import connect

from chatserver.domain.item import PartKind
from chatserver.domain.response import Params, Response
from chatserver.domain.tape import Delta, ItemClosed, ItemOpened, Record
from chatserver.service.web import counting
from chatserver.wire.chat_chunks import Chunks
from chatserver.wire.documents import asyncapi, openapi
from chatserver.wire.response_events import ResponseEvents

UNPLAYED = {
    "response.reasoning_text.delta",
    "response.reasoning_text.done",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
}
"""Events that the fake engine's answers do not bring."""


def closed(schema):
    """Return a schema that refuses fields that it does not name."""
    if isinstance(schema, dict):
        made = {name: closed(value) for name, value in schema.items()}
        if "properties" in made:
            made.setdefault("additionalProperties", False)
        return made
    return [closed(value) for value in schema] if isinstance(schema, list) else schema


def validator(document: dict, schema: dict) -> Draft202012Validator:
    whole = closed(copy.deepcopy(schema)) | {"components": closed(copy.deepcopy(document["components"]))}
    return Draft202012Validator(whole)


class Described:
    """Calls the API as one would, and holds every answer against its description."""

    def __init__(self, http) -> None:
        self._http = http
        self._document = openapi.document()
        self.seen: set[tuple[str, str, str]] = set()

    async def call(self, method: str, path: str, body=None, **options):
        answer = await self._http.request(method, path, json=body, **options)
        template = self._template(method, path.partition("?")[0])
        status = str(answer.status_code)
        described = self._document["paths"][template][method.lower()]["responses"][status]
        if "$ref" in described:
            described = self._document["components"]["responses"][status]
        self.seen.add((method, template, status))
        must = {name for name, header in described["headers"].items() if header.get("required")}
        assert must <= set(answer.headers), (method, path, status)
        if answer.status_code == 204:
            return answer
        kind = answer.headers.get("content-type", "").partition(";")[0]
        schema = described["content"][kind]["schema"]
        if kind == "application/json":
            validator(self._document, schema).validate(answer.json())
        return answer

    def _template(self, method: str, path: str) -> str:
        fitting = [
            template
            for template, item in self._document["paths"].items()
            if method.lower() in item and re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), path)
        ]
        return min(fitting, key=lambda template: template.count("{"))  # as the router has them


@pytest.mark.parametrize("web", ["memory"], indirect=True)
async def test_every_route_answers_as_described(web, monkeypatch):
    """Each operation once with success, and errors of each kind; nothing that is described is left out."""
    monkeypatch.setattr(counting, "PATIENCE", 0.05)  # the fake engine answers no such questions
    api = Described(web.http())
    made = (await api.call("POST", "/v1/responses", {"input": "Hi", "metadata": {"a": "b"}})).json()
    one, conversation = f"/v1/responses/{made['id']}", f"/v1/conversations/{made['conversation']['id']}"
    await api.call("GET", one)
    await api.call("GET", f"{one}?stream=true")
    await api.call("GET", f"{one}?stream=true&starting_after=100000")
    await api.call("GET", f"{one}/input_items")
    await api.call("POST", f"{one}/cancel")
    await api.call("POST", "/v1/responses", {"input": "Hi", "stream": True})
    await api.call("POST", "/v1/responses", {"input": "FAIL"})
    await api.call(
        "POST", "/v1/responses", {"input": "Hi", "n": 2, "stop": "x", "truncation": {"type": "auto"}}
    )
    await api.call("POST", "/v1/responses", {"input": "Hi", "max_output_tokens": 2})
    await api.call("GET", "/v1/conversations")
    await api.call("GET", conversation)
    await api.call("POST", conversation, {"title": "T", "metadata": {"a": "b"}})
    await api.call("GET", f"{conversation}/cache")
    await api.call("DELETE", f"{conversation}/cache")
    items = (await api.call("GET", f"{conversation}/items?order=asc")).json()["data"]
    await api.call("GET", f"{conversation}/items?order=asc&branches=all")
    await api.call("GET", f"{conversation}/items?siblings=true")
    await api.call("GET", f"{conversation}/items/{items[0]['id']}")
    await api.call("POST", f"{conversation}/items", {"items": [{"role": "user", "content": "More"}]})
    await api.call("POST", f"{conversation}/fork", {})
    await api.call("DELETE", f"{conversation}/items/{items[-1]['id']}")
    await api.call("DELETE", one)
    await api.call("DELETE", conversation)
    await api.call("POST", "/v1/conversations", {"items": [{"role": "user", "content": "Hi"}]})
    chat = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
    for prefix in ("", "/v1", "/beta"):
        await api.call("POST", f"{prefix}/chat/completions", {**chat, "n": 2})
        await api.call("GET", f"{prefix}/models")
        await api.call("GET", f"{prefix}/models/deepseek-chat")
        await api.call("GET", f"{prefix}/models/gpt-9")
    for path in ("/v1/usage", "/livez", "/readyz", "/metrics", "/openapi.json", "/asyncapi.json"):
        await api.call("GET", path)
    for path in ("/docs", "/docs/events", "/docs/developers"):
        await api.call("GET", path)
    await api.call("POST", "/v1/responses", {"input": 5})
    await api.call("POST", "/v1/responses/input_tokens", {"input": "Hi"})
    described = {
        (method.upper(), path, "200")
        for path, item in openapi.document()["paths"].items()
        for method in item
        if method != "parameters"
    }
    # a fake engine counts no tokens: that answer is held against its description by the tests of counting
    assert described - api.seen <= {("POST", "/v1/responses/input_tokens", "200")}


@pytest.mark.parametrize("web", ["memory"], indirect=True)
async def test_every_event_is_as_described(web):
    """Of answers that complete, are cut off, fail; of a stream over HTTP, and chunks of a chat completion."""
    document = asyncapi.document()
    messages = document["components"]["messages"]
    seen = set()
    for body in ({"input": "Hi"}, {"input": "Hi", "max_output_tokens": 2}, {"input": "FAIL"}):
        async with web.http().stream("POST", "/v1/responses", json={**body, "stream": True}) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    event = json.loads(line[6:])
                    validator(document, messages[event["type"]]["payload"]).validate(event)
                    seen.add(event["type"])
    assert seen == set(document["channels"]["newAnswer"]["messages"]) - {"error"} - UNPLAYED
    chat = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    chat["stream_options"] = {"include_usage": True}
    async with web.http().stream("POST", "/v1/chat/completions", json=chat) as answer:
        lines = [line async for line in answer.aiter_lines() if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    for line in lines[:-1]:
        validator(document, messages["chunk"]["payload"]).validate(json.loads(line[6:]))


@pytest.mark.parametrize("web", ["memory"], indirect=True)
async def test_every_frame_is_as_described(web):
    """On the WebSocket, with lanes: an answer, its place in the queue, a stop, a refusal."""
    document = asyncapi.document()
    messages, seen = document["components"]["messages"], set()

    async def until(socket, kind: str) -> dict:
        while True:
            frame = json.loads(await socket.recv())
            validator(document, messages[f"ws.{frame['type']}"]["payload"]).validate(frame)
            seen.add(f"ws.{frame['type']}")
            if frame["type"] == kind:
                return frame

    async with connect(web.url.replace("http", "ws") + "/v1/responses") as socket:
        await socket.send(json.dumps({"type": "auth", "token": "x"}))
        await until(socket, "auth.accepted")
        await web.engine.rest()
        await socket.send(json.dumps({"type": "response.create", "input": "Hi", "stream_id": "a"}))
        await until(socket, "response.queue_position")
        web.engine.go.set()
        await until(socket, "response.completed")
        web.engine.pause = 0.05
        await socket.send(json.dumps({"type": "response.create", "input": "Hi"}))
        made = await until(socket, "response.created")
        await until(socket, "response.output_text.delta")
        await socket.send(json.dumps({"type": "response.cancel", "response_id": made["response"]["id"]}))
        await until(socket, "response.incomplete")
        await socket.send(json.dumps({"type": "response.create", "input": "FAIL"}))
        await until(socket, "response.failed")
        conversation = made["response"]["conversation"]["id"]
        subscribe = {"type": "conversation.subscribe", "conversation_id": conversation, "stream_id": "b"}
        await socket.send(json.dumps(subscribe))
        await until(socket, "conversation.changed")
        await web.http().delete(f"/v1/conversations/{conversation}")
        await until(socket, "conversation.deleted")
        await socket.send("{")
        await until(socket, "error")
    told = {m["$ref"].rsplit("/", 1)[-1] for m in document["operations"]["tell"]["messages"]}
    # limits are told of in test_limits: here nobody has any
    assert seen == told - {f"ws.{name}" for name in (*UNPLAYED, "rate_limits.updated")}


def test_reasoning_and_calls_are_as_described():
    """The events and chunks of parts that the fake engine does not write, made from records of a tape."""
    params = Params(model="tiny")
    response = Response("resp_1", "tenant", params, item_id="msg_1", created_at=1)
    document, seen = asyncapi.document(), set()
    messages = document["components"]["messages"]
    events, chunks = ResponseEvents(response), Chunks(response, include_usage=False)
    for index, kind in enumerate((PartKind.REASONING, PartKind.CALL, PartKind.TEXT)):
        call = {"call_id": "call_1", "name": "look"} if kind is PartKind.CALL else {}
        bodies = (
            ItemOpened(f"part_{index}", kind=kind, index=index, **call),
            Delta(("a", "b"), (1, 2), kind=kind, index=index),
            ItemClosed(f"part_{index}", "ab", True, kind=kind, index=index, **call),
        )
        for number, body in enumerate(bodies, start=1):
            record = Record(index * 20 + number * 5, body)
            for event in events.encode(record):
                validator(document, messages[event.type.decode()]["payload"]).validate(json.loads(event.data))
                seen.add(event.type.decode())
            for line in chunks.encode(record).split(b"\n\n")[:-1]:
                validator(document, messages["chunk"]["payload"]).validate(
                    json.loads(line.removeprefix(b"data: "))
                )
    assert seen >= UNPLAYED
