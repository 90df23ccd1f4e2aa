"""A full queue refuses, at every door, with a time to come back at; what waits is answered, and then there is room."""

from __future__ import annotations

import asyncio

import pytest

from chatserver.domain.ids import SHARDS
from tests.chatserver.transports.conftest import opened_store, running_web
from tests.chatserver.transports.test_websocket import receive, send, socket_to, until

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
ASK = {"model": "tiny", "input": "Hi"}
DOORS = {
    "Responses": ("/v1/responses", ASK),
    "Responses, streamed": ("/v1/responses", ASK | {"stream": True}),
    "Responses, in the background": ("/v1/responses", ASK | {"background": True}),
    "Chat Completions": ("/v1/chat/completions", CHAT),
    "Chat Completions, streamed": ("/v1/chat/completions", CHAT | {"stream": True}),
}


@pytest.fixture
async def full():
    """A web role on a real store, each shard's queue as long as it may be, and no engine that takes a job yet."""
    async with opened_store("valkey") as store, running_web(store, queue_bound=1) as web:
        while not await store.registry.models():
            await asyncio.sleep(0.005)
        await web.engine.rest()
        http, waiting = web.http(), 0
        async with asyncio.timeout(60):
            while waiting < SHARDS:
                answer = await http.post("/v1/responses", json=ASK | {"background": True})
                waiting += answer.status_code == 200
        yield web


async def test_each_door_says_when_to_come_back(full):
    http = full.http()
    for name, (path, body) in DOORS.items():
        refused = await http.post(path, json=body)
        assert refused.status_code == 429, name
        assert refused.json()["error"]["code"] == "queue_full", name
        assert 0 < int(refused.headers["retry-after-ms"]) <= 1000 * int(refused.headers["retry-after"]), name
    assert await full.store.turns.waiting() == SHARDS
    async with socket_to(full) as socket:
        await send(socket, type="response.create", **ASK)
        refused = await receive(socket)
        assert (refused["status"], refused["error"]["code"]) == (429, "queue_full")
        assert int(refused["error"]["headers"]["retry-after-ms"]) > 0
        full.engine.go.set()
        async with asyncio.timeout(60):
            while await full.store.turns.waiting():
                await asyncio.sleep(0.01)
        await send(socket, type="response.create", **ASK)  # the connection is as good as before
        await until(socket, "response.completed")
    conversations = (await http.get("/v1/conversations", params={"limit": 100})).json()["data"]
    assert len(conversations) == SHARDS + 1, "what was refused has left something"
