"""Tenants never see each other: on every route a foreign id looks exactly like one that does not exist."""

from __future__ import annotations

import re

import pytest

from chatserver.domain.ids import shard_of
from chatserver.wire.documents import openapi
from tests.chatserver.transports.conftest import opened_store, running_web
from tests.chatserver.transports.keyed import bearer, new_key, socket_of

VOLATILE = ("x-request-id", "date", "content-length")
QUERIES = ("", "?stream=true", "?branches=all", "?limit=1")
BODIES = {
    "/v1/conversations/{conversation_id}": {"metadata": {}},
    "/v1/conversations/{conversation_id}/items": {"items": [{"role": "user", "content": "Hi"}]},
}


@pytest.fixture
async def scene():
    """A tenant with a conversation, its items and a response; and another tenant, who asks."""
    async with opened_store("valkey") as store, running_web(store) as web:
        owner = web.http(headers=bearer(await new_key(store, "acme")))
        stranger = await new_key(store, "other")
        answer = (await owner.post("/v1/responses", json={"input": "Hi"})).json()
        ids = {
            "conversation_id": answer["conversation"]["id"],
            "response_id": answer["id"],
            "item_id": answer["output"][0]["id"],
        }
        yield web, owner, stranger, ids


def missing(identifier: str) -> str:
    """An id of the same kind and shard that nobody has."""
    assert shard_of(identifier) is not None
    return identifier[:-4] + ("0000" if identifier[-4:] != "0000" else "0001")


def shape(answer, *ids: str) -> tuple:
    """All that an answer tells, without the ids and what differs between any two answers."""
    text = answer.text
    for identifier in ids:
        text = text.replace(identifier, "ID")
    headers = {k: v for k, v in answer.headers.items() if k not in VOLATILE}
    return answer.status_code, text, headers


def places() -> list[tuple[str, str]]:
    return [
        (method.upper(), path)
        for path, operations in openapi.document()["paths"].items()
        for method in operations.keys() - {"parameters"}
        if set(re.findall(r"{(\w+)}", path)) - {"model"}
    ]


async def test_foreign_ids_in_paths(scene):
    """Every route with an id, with every id in it foreign; and with an own conversation but a foreign item."""
    web, owner, stranger, ids = scene
    http = web.http(headers=bearer(stranger))
    assert len(places()) >= 12
    for method, path in places():
        for query in QUERIES if method == "GET" else ("",):
            names = re.findall(r"{(\w+)}", path)
            foreign, nobody = path, path
            for name in names:
                foreign = foreign.replace(f"{{{name}}}", ids[name])
                nobody = nobody.replace(f"{{{name}}}", missing(ids[name]))
            body = BODIES.get(path) if method == "POST" else None
            one = await http.request(method, foreign + query, json=body)
            two = await http.request(method, nobody + query, json=body)
            known = [ids[name] for name in names]
            assert shape(one, *known) == shape(two, *map(missing, known)), (method, path, query)
            assert one.status_code in (404, 400), (method, path, query, one.text)
    mine = (await http.post("/v1/conversations", json={})).json()["id"]
    for method in ("GET", "DELETE"):
        foreign = await http.request(method, f"/v1/conversations/{mine}/items/{ids['item_id']}")
        nobody = await http.request(method, f"/v1/conversations/{mine}/items/{missing(ids['item_id'])}")
        assert shape(foreign, ids["item_id"]) == shape(nobody, missing(ids["item_id"]))
    still = await owner.get(f"/v1/conversations/{ids['conversation_id']}/items")
    assert len(still.json()["data"]) == 2 and (await owner.get(f"/v1/responses/{ids['response_id']}")).json()


async def test_foreign_ids_in_bodies_and_queries(scene):
    """What a request names is looked up as strictly as what it is sent to."""
    web, _, stranger, ids = scene
    http = web.http(headers=bearer(stranger))
    mine = (await http.post("/v1/conversations", json={})).json()["id"]
    conversation, response, item = ids["conversation_id"], ids["response_id"], ids["item_id"]
    asks = (
        ("POST", "/v1/responses", {"input": "Hi", "conversation": "{}"}, conversation),
        (
            "POST",
            "/v1/responses",
            {"input": "Hi", "conversation": {"id": "{}", "parent": None}},
            conversation,
        ),
        ("POST", "/v1/responses", {"input": "Hi", "previous_response_id": "{}"}, response),
        ("POST", "/v1/responses", {"input": "Hi", "conversation": {"id": mine, "parent": "{}"}}, item),
        ("POST", f"/v1/conversations/{mine}/fork", {"leaf": "{}"}, item),
        ("GET", "/v1/conversations?after={}", None, conversation),
        ("GET", f"/v1/conversations/{mine}/items?leaf={{}}", None, item),
        ("GET", f"/v1/conversations/{mine}/items?after={{}}", None, item),
        ("GET", f"/v1/conversations/{mine}/items?branches=all&after={{}}", None, item),
    )
    for method, path, body, identifier in asks:
        shapes = []
        for one in (identifier, missing(identifier)):
            filled = _filled(body, one)
            answer = await http.request(method, path.replace("{}", one), json=filled)
            shapes.append(shape(answer, one))
        assert shapes[0] == shapes[1], (method, path, body)
        assert 400 <= shapes[0][0] < 500, (path, body, shapes[0])


async def test_foreign_ids_on_the_websocket(scene):
    web, _, stranger, ids = scene
    conversation, response = ids["conversation_id"], ids["response_id"]
    frames = (
        ('{"type":"response.attach","response_id":"{}"}', response),
        ('{"type":"response.cancel","response_id":"{}"}', response),
        ('{"type":"input.typing","conversation_id":"{}"}', conversation),
        ('{"type":"response.create","input":"Hi","conversation":"{}"}', conversation),
        ('{"type":"response.create","input":"Hi","previous_response_id":"{}"}', response),
    )
    async with socket_of(web, stranger) as connection:
        for frame, identifier in frames:
            told = []
            for one in (identifier, missing(identifier)):
                await connection.send(frame.replace("{}", one))
                told.append((await connection.recv()).replace(one, "ID"))
            assert told[0] == told[1] and '"status":404' in told[0], frame


async def test_lists_hold_only_what_is_ones_own(scene):
    web, owner, stranger, _ = scene
    http = web.http(headers=bearer(stranger))
    assert (await http.get("/v1/conversations")).json()["data"] == []
    assert len((await owner.get("/v1/conversations")).json()["data"]) == 1


async def test_live_ids_are_told_to_nobody_else(scene):
    """No route without an id, asked by another tenant or by nobody, names an answer that is being written."""
    web, owner, stranger, _ = scene
    web.engine.write.clear()
    live = (await owner.post("/v1/responses", json={"input": "Hi", "background": True})).json()
    assert live["status"] in ("queued", "in_progress")
    paths = [path for path, operations in openapi.document()["paths"].items() if "get" in operations]
    asked = [path for path in (*paths, "/v1/responses") if "{" not in path]
    assert {"/v1/conversations", "/metrics", "/readyz"} <= {*asked}
    for headers in (bearer(stranger), {}):
        http = web.http(headers=headers)
        for path in asked:
            told = (await http.get(path)).text
            assert live["id"] not in told and live["conversation"]["id"] not in told, path
    assert (
        await owner.get("/v1/responses")
    ).status_code == 405  # a list of answers is not kept for their owner either
    web.engine.write.set()


async def test_idempotency_keys_are_each_tenants_own(scene):
    web, owner, stranger, _ = scene
    key = {"Idempotency-Key": "the-same"}
    one = (await owner.post("/v1/responses", json={"input": "Hi"}, headers=key)).json()
    two = await web.http(headers=bearer(stranger)).post("/v1/responses", json={"input": "Hi"}, headers=key)
    assert two.status_code == 200 and two.json()["id"] != one["id"]


def _filled(body, identifier):
    if isinstance(body, dict):
        return {name: _filled(value, identifier) for name, value in body.items()}
    return identifier if body == "{}" else body
