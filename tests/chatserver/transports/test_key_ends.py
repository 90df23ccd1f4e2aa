"""A key that ends while its connections are open; figures that need one; limits that are changed."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import pytest
import websockets

from chatserver.domain.access import Limits, Scope
from chatserver.service.web.vigil import Vigil
from tests.chatserver.transports.conftest import opened_store, running_web
from tests.chatserver.transports.keyed import DEED, bearer, expire, key_id_of, new_key
from tests.chatserver.transports.reading import parse_sse


@pytest.fixture
async def stored(monkeypatch):
    """A web role on a real store that looks at keys often."""
    monkeypatch.setattr("chatserver.service.web.vigil.INTERVAL", 0.05)
    async with opened_store("valkey") as store, running_web(store) as web:
        while not await store.registry.models():
            await asyncio.sleep(0.005)
        yield web


async def read(asking, seen: list[str]) -> str:
    """Read an answer to its end; what has come so far is in `seen`."""
    async with asking as answer:
        async for line in answer.aiter_lines():
            seen += line, "\n"
    return "".join(seen)


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions", "follow"])
async def test_an_open_stream_ends_with_its_key(stored, path):
    """Revoked in mid-answer: an error that says so, then the end, though the answer goes on; coming back is a 401."""
    token, owner = await new_key(stored.store), await new_key(stored.store)
    stored.engine.write.clear()
    http = stored.http(headers=bearer(token))
    body = {"model": "tiny", "stream": True}
    body |= {"messages": [{"role": "user", "content": "Hi"}]} if "chat" in path else {"input": "Hi"}
    if path == "follow":
        created = await http.post("/v1/responses", json={"model": "tiny", "input": "Hi", "background": True})
        url = f"/v1/responses/{created.json()['id']}?stream=true"
        asking = http.stream("GET", url)
    else:
        asking = http.stream("POST", path, json=body)
    seen: list[str] = []
    reading = asyncio.create_task(read(asking, seen))
    async with asyncio.timeout(60):
        while "w2" not in "".join(seen):
            await asyncio.sleep(0.005)
    await stored.store.access.revoke(key_id_of(token), replace(DEED, at=time.time(), what="revoke"))
    events = parse_sse(await asyncio.wait_for(reading, 60))
    assert "invalid_api_key" in events[-1]["data"] and "revoked" in events[-1]["data"]
    assert "w2" in str(events) and "w19" not in str(events)
    if path == "follow":
        assert (await http.get(url)).status_code == 401
        stored.engine.write.set()
        assert "w19" in (await stored.http(headers=bearer(owner)).get(url)).text


async def test_a_slow_json_answer_ends_with_its_key(stored, monkeypatch):
    monkeypatch.setattr("chatserver.transports.sse.PING", 0.05)
    token = await new_key(stored.store, expires_at=int(time.time()) + 3600)
    stored.engine.write.clear()
    http, body = stored.http(headers=bearer(token)), {"model": "tiny", "input": "Hi"}
    async with http.stream("POST", "/v1/responses", json=body) as answer:
        assert answer.status_code == 200
        text = ""
        async for part in answer.aiter_text():
            if not text:
                await expire(stored.store, token)
            text += part
    error = json.loads(text)["error"]
    assert error["code"] == "invalid_api_key" and "expired" in error["message"]


async def test_one_look_at_a_key_whatever_the_number_of_its_connections(monkeypatch):
    """Who leaves is not told; when all have left, nobody looks."""
    monkeypatch.setattr("chatserver.service.web.vigil.INTERVAL", 0.01)
    looks, ended = [], []

    async def valid(key_id: str) -> None:
        looks.append(key_id)

    vigil = Vigil(valid)
    leave = [vigil.join("key", ended.append) for _ in range(3)] + [vigil.join("key", print)]
    began = time.monotonic()
    watching = asyncio.create_task(vigil.run())
    async with asyncio.timeout(60):
        while len(looks) < 4:
            await asyncio.sleep(0.005)
    assert len(looks) <= 1 + (time.monotonic() - began) / 0.01 and set(looks) == {"key"} and not ended
    for one in leave:
        one()
    await asyncio.sleep(0.02)
    seen = len(looks)
    await asyncio.sleep(0.05)
    assert len(looks) == seen
    watching.cancel()


async def test_figures_need_a_key_where_there_is_one(stored):
    """Open to all on the loopback address without keys; then for the scope `usage`."""
    assert (await stored.http().get("/metrics")).status_code == 200
    able, unable = [await new_key(stored.store, scopes={s}) for s in (Scope.USAGE, Scope.GENERATE)]
    await asyncio.sleep(1.1)  # who needs no key asks the store once a second whether there are some
    assert (await stored.http().get("/metrics")).status_code == 401
    assert (await stored.http(headers=bearer(unable)).get("/metrics")).status_code == 403
    assert "chatserver_engine_ready" in (await stored.http(headers=bearer(able)).get("/metrics")).text


async def test_limits_change_with_the_next_request(stored):
    token = await new_key(stored.store, requests=1000, tokens=1000)
    http = stored.http(headers=bearer(token))
    assert (await http.get("/v1/models")).headers["x-ratelimit-limit-requests"] == "1000"
    limits = Limits(requests=2, spend=7)
    changed = await stored.store.access.limit(key_id_of(token), limits, replace(DEED, what="limit"))
    assert changed.limits == limits and (await stored.store.access.get(key_id_of(token))).limits == limits
    answers = [await http.get("/v1/models") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].headers["x-ratelimit-limit-requests"] == "2"
    assert "x-ratelimit-limit-tokens" not in answers[0].headers


async def test_the_socket_tells_the_limits_at_its_start(stored):
    """In the handshake for who brings the key there, in the answer to the first message for who brings it there."""
    url = stored.url.replace("http", "ws") + "/v1/responses"
    token = await new_key(stored.store, requests=100, tokens=5000)
    protocols = [
        websockets.Subprotocol("realtime"),
        websockets.Subprotocol(f"openai-insecure-api-key.{token}"),
    ]
    for left, options in ((99, {"additional_headers": bearer(token)}), (98, {"subprotocols": protocols})):
        async with websockets.connect(url, **options) as connection:
            told = connection.response.headers
            assert told["x-ratelimit-limit-requests"] == "100" and told["x-ratelimit-limit-tokens"] == "5000"
            assert told["x-ratelimit-remaining-requests"] == str(left)
    async with websockets.connect(url) as connection:
        assert "x-ratelimit-limit-requests" not in connection.response.headers
        await connection.send(json.dumps({"type": "auth", "token": token}))
        accepted = json.loads(await asyncio.wait_for(connection.recv(), 60))
        assert accepted["type"] == "auth.accepted"
        assert accepted["headers"]["x-ratelimit-remaining-requests"] == "97"
