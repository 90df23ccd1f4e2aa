"""Conversations as trees over HTTP, and what is warm of them."""

from __future__ import annotations

import pytest

from chatserver.ports.caches import CacheReport, Warm
from tests.chatserver.transports.conftest import running_web
from tests.chatserver.transports.test_websocket import receive, send, socket_to, until
from tests.fakes import MODEL, MemoryStore


@pytest.fixture
async def memory():
    """A web role in memory."""
    store = MemoryStore()
    store.known_models.append(MODEL)
    async with running_web(store) as web:
        yield web


async def conversation(web, http) -> str:
    answer = await http.post("/v1/conversations", json={"items": [{"role": "user", "content": "Hi"}]})
    return answer.json()["id"]


async def test_the_cache_is_told_by_the_coldest_engine(memory):
    """Any engine may take the next turn, so the least warm one counts; without engines nothing is known."""
    async with memory.http() as http:
        one = await conversation(memory, http)
        assert memory.store.reports
        memory.store.reports, announced = {}, dict(memory.store.reports)
        cold = (await http.get(f"/v1/conversations/{one}/cache")).json()
        assert (cold["object"], cold["state"], cold["warm_tokens"]) == ("conversation.cache", "unknown", None)
        memory.store.reports = announced
        memory.store.caches.reports = [
            CacheReport("eng_a", 100, 90, 1, "msg_x"),
            CacheReport("eng_b", 100, 0, 1, "msg_x"),
        ]
        known = (await http.get(f"/v1/conversations/{one}/cache")).json()
        assert (known["state"], known["prefix_tokens"], known["warm_tokens"]) == ("known", 100, 0)
        assert known["prefill_tokens"] == 100
        assert [engine["warm_tokens"] for engine in known["engines"]] == [90, 0]
        assert (await http.get("/v1/conversations/conv_x/cache")).status_code == 404


async def test_opening_and_typing_warm_up(memory):
    """Reading a conversation's items and `input.typing` tell the engines, once; bad ids are refused as usual."""
    async with memory.http() as http, socket_to(memory) as socket:
        one, other = await conversation(memory, http), await conversation(memory, http)
        await http.get(f"/v1/conversations/{one}/items")
        await http.get(f"/v1/conversations/{one}/items")
        for _ in range(3):
            await send(socket, type="input.typing", conversation_id=other)
        await send(socket, type="input.typing", conversation_id="conv_nobody")
        assert (await receive(socket))["status"] == 404
        await send(socket, type="response.create", input="Hi")
        await until(socket, "response.completed")
        assert memory.store.caches.heard == [Warm("local", one), Warm("local", other)]
