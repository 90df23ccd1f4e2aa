"""Each documented error is one that can be had, and looks as it is described."""

from __future__ import annotations

import asyncio
import re

from chatserver.domain.access import Scope
from chatserver.service.web.models import Models
from chatserver.wire.documents import openapi
from tests.chatserver.transports.conftest import opened_store, running_web
from tests.chatserver.transports.keyed import HI, PRICE, PRICES, bearer, chat_of, new_key
from tests.chatserver.transports.test_described import Described

IDS = {"response_id": "resp_x", "conversation_id": "conv_x", "item_id": "msg_x", "model": "tiny"}


def operations() -> list[tuple[str, str, str, dict]]:
    """Every operation: its method, its path, one with ids of nobody, and its answers."""
    return [
        (method.upper(), path, re.sub(r"{(\w+)}", lambda name: IDS[name[1]], path), operation["responses"])
        for path, item in openapi.document()["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    ]


async def test_who_may_not_and_who_may_no_more():
    """401, 403 and 429 of every operation that has them, and of no other; a key is asked for before anything else."""
    async with opened_store("valkey") as store, running_web(store, prices=PRICES) as web:
        usage = await new_key(store, scopes={Scope.USAGE})
        write = await new_key(store, scopes={Scope.WRITE})
        spent = await new_key(store, requests=1)
        api = Described(web.http())
        await api.call("GET", "/v1/models", headers=bearer(spent))
        for method, path, place, answers in operations():
            got = {(await api.call(method, place)).status_code}
            for token in (usage, write, spent):
                got.add((await api.call(method, place, headers=bearer(token))).status_code)
            free = (
                path.removeprefix("/v1").removeprefix("/beta").startswith("/models")
            )  # any key may list them
            assert {401, 429} <= got if "401" in answers else got <= {200, 503}, (method, path, got)
            assert (403 in got) == ("403" in answers and not free), (method, path, got)


async def test_what_is_too_large_spent_unknown_or_busy():
    """402, 404, 409 and 413 of those that have them."""
    async with opened_store("valkey") as store, running_web(store, prices=PRICES, max_body=2000) as web:
        poor = await new_key(store, spend=PRICE.cost(prompt=0, cached=0, output=1))
        rich = web.http(headers=bearer(await new_key(store)))
        while not await store.registry.models():
            await asyncio.sleep(0.005)
        api = Described(rich)
        for path, body in (("/v1/responses", HI), ("/v1/chat/completions", chat_of())):
            assert (await api.call("POST", path, body, headers=bearer(poor))).status_code == 402
            assert (await api.call("POST", path, body | {"model": "gpt-9"})).status_code == 404
        for method, path, place, answers in operations():
            if "{" in path and "model" not in path:
                body = {"items": [chat_of()["messages"][0]], "metadata": {}}
                body = {name: value for name, value in body.items() if name == _wanted(path)}
                got = await api.call(method, place, body if method == "POST" else None)
                assert got.status_code == 404 and "404" in answers, (method, path)
            if method == "POST" and not path.endswith("/cancel"):
                assert (await api.call(method, place, {"text": "x" * 3000})).status_code == 413, path
        web.engine.write.clear()
        began = (await api.call("POST", "/v1/responses", HI | {"background": True})).json()
        one, talk = f"/v1/responses/{began['id']}", f"/v1/conversations/{began['conversation']['id']}"
        items = (await api.call("GET", f"{talk}/items")).json()["data"]
        busy = [
            ("POST", "/v1/responses", HI | {"conversation": began["conversation"]["id"]}),
            ("POST", "/v1/responses/input_tokens", HI | {"previous_response_id": began["id"]}),
            ("DELETE", one, None),
            ("DELETE", talk, None),
            ("POST", f"{talk}/items", {"items": [chat_of()["messages"][0]]}),
            ("DELETE", f"{talk}/items/{items[0]['id']}", None),
        ]
        for method, path, body in busy:
            assert (await api.call(method, path, body)).status_code == 409, (method, path)
        key = {"Idempotency-Key": "k"}
        await api.call("POST", "/v1/responses", HI | {"background": True}, headers=key)
        for path in ("/v1/chat/completions", "/beta/chat/completions"):
            assert (await api.call("POST", path, chat_of(), headers=key)).status_code == 409
        described = {(m, p) for m, p, _, answers in operations() if "409" in answers}
        seen = {(m, p) for m, p, status in api.seen if status == "409"}
        assert {(m, p.removeprefix("/v1")) for m, p in described} == {
            (m, p.removeprefix("/v1")) for m, p in seen
        }
        web.engine.write.set()


def _wanted(path: str) -> str:
    return "items" if path.endswith("/items") else "" if path.endswith("/fork") else "metadata"


async def test_nothing_there_yet(memory, monkeypatch):
    """503, also of /readyz, with the time to come back: no engine is there."""

    async def nothing(self):
        return []

    monkeypatch.setattr(Models, "all", nothing)
    monkeypatch.setattr(type(memory.store.registry), "engines", nothing)
    api = Described(memory.http())
    for method, path, body in (("POST", "/v1/responses", HI), ("GET", "/readyz", None)):
        answer = await api.call(method, path, body)
        assert answer.status_code == 503 and answer.headers["retry-after"] == "5"
