"""Readers that are cut off again and again, on two web processes and both streaming doors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from contextlib import AsyncExitStack

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.chatserver.transports.conftest import opened_store, running_web
from tests.fakes import FakeEngine

CUTS = 1000
READERS = 24


class Cut(Exception):
    """The client's connection is gone."""


class Reader:
    """One client: comes back at its position until the answer has ended."""

    def __init__(self, number: int, urls: list[str], response_id: str, cuts: list[int]) -> None:
        self.text, self.position, self.whole = "", -1, ""
        self._random = random.Random(number)
        self._urls, self._response_id, self._cuts = urls, response_id, cuts
        self._left = 0

    async def run(self) -> Reader:
        async with httpx.AsyncClient(timeout=20) as client:
            while not self.whole:
                url = self._random.choice(self._urls)
                self._left = self._random.randrange(6)
                with contextlib.suppress(Cut):
                    await (self._sse(client, url) if self._random.random() < 0.5 else self._websocket(url))
        return self

    async def _sse(self, client: httpx.AsyncClient, url: str) -> None:
        path = f"{url}/v1/responses/{self._response_id}"
        query = (
            {"stream": "true", "starting_after": str(self.position)}
            if self.position >= 0
            else {"stream": "true"}
        )
        async with client.stream("GET", path, params=query) as answer:
            assert answer.status_code == 200, await answer.aread()
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    self._take(json.loads(line[6:]))

    async def _websocket(self, url: str) -> None:
        address = url.replace("http", "ws") + "/v1/responses"
        async with connect(address, max_size=None, compression=None) as socket:
            attach = {
                "type": "response.attach",
                "response_id": self._response_id,
                "starting_after": self.position,
            }
            await socket.send(json.dumps(attach))
            while not self.whole:
                try:
                    self._take(json.loads(await socket.recv()))
                except Cut:
                    socket.transport.abort()
                    raise

    def _take(self, event: dict) -> None:
        assert "sequence_number" in event, event
        number = event["sequence_number"]
        assert number > self.position, (number, self.position)
        self.position = number
        if event["type"] == "response.output_text.delta":
            self.text += event["delta"]
        if event["type"] == "response.output_text.done":
            self.whole = event["text"] or "-"
        self._left -= 1
        if self._left < 0 and self._cuts[0] > 0:
            self._cuts[0] -= 1
            raise Cut


@pytest.mark.timeout(120)
async def test_a_thousand_cuts_on_two_web_processes_lose_and_double_nothing():
    """Every reader has the whole text once, whatever was cut where, and wherever it came back."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened_store("valkey"))
        engine, idle = FakeEngine(store), FakeEngine(store)
        engine.answer, engine.pause = [f"w{i} " for i in range(30_000)], 0.004
        idle.go.clear()
        webs = [await stack.enter_async_context(running_web(store, engine=one)) for one in (engine, idle)]
        while not await store.registry.models():
            await asyncio.sleep(0.005)
        sdk = webs[0].sdk()
        created = await sdk.responses.create(input="hi", background=True, max_output_tokens=30_000)
        cuts = [CUTS]
        readers = [Reader(n, [web.url for web in webs], created.id, cuts) for n in range(READERS)]
        reading = asyncio.gather(*(reader.run() for reader in readers))
        while cuts[0] > 0 and not reading.done():
            await asyncio.sleep(0.02)
        await sdk.responses.cancel(created.id)
        await reading
        final = (await sdk.responses.retrieve(created.id)).output_text
    assert cuts[0] == 0
    assert len(final) > 100
    assert {reader.text for reader in readers} == {final} == {reader.whole for reader in readers}
