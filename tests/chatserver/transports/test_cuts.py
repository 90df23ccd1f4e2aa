"""Readers that are cut off again and again, that join late, that come when all is over: two web processes, each door.

The model is the tape itself, as the store has it: a text for each number.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest
import redis
from websockets.asyncio.client import connect

from chatserver.adapters.valkey import ValkeyStore
from chatserver.domain.tape import Delta
from chatserver.errors import NotFound
from chatserver.ports.turns import RESPONSE_TTL
from tests.chatserver.transports.conftest import running_web
from tests.fakes import FakeEngine
from tests.stores import RunningStore, running_store

CUTS = 1000
MOST = 90_000
"""Tokens that the engine would write."""
READERS = 24
JOINERS = 60
"""Readers that come to a running answer, at any position."""
LATE = 120
"""Readers that come to an answer that has ended."""
DOORS = ("query", "header", "websocket")
"""How a reader says where it is: `starting_after`, Last-Event-ID, `response.attach`."""


class Cut(Exception):
    """The client's connection is gone."""


class Reader:
    """One client: comes back at its position until the answer has ended. `cuts`: how many are left for all."""

    def __init__(
        self, number: int, urls: list[str], response_id: str, cuts: list[int], began: int = -1
    ) -> None:
        self.text, self.position, self.whole = "", began, ""
        self.began, self.doors = began, Counter[str]()
        self._random = random.Random(f"{began} {number}")
        self._urls, self._response_id, self._cuts = urls, response_id, cuts
        self._left = 0

    async def run(self, client: httpx.AsyncClient) -> Reader:
        while not self.whole:
            url = self._random.choice(self._urls)
            self._left = self._random.randrange(6)
            door = self._random.choice(DOORS)
            self.doors[door] += 1
            with contextlib.suppress(Cut):
                await (self._websocket(url) if door == "websocket" else self._sse(client, url, door))
        return self

    async def _sse(self, client: httpx.AsyncClient, url: str, door: str) -> None:
        path = f"{url}/v1/responses/{self._response_id}?stream=true"
        headers = {}
        if self.position >= 0 and door == "header":
            headers["Last-Event-ID"] = str(self.position)
            path += "&starting_after=0"  # as in the address of an EventSource that comes back by itself
        elif self.position >= 0:
            path += f"&starting_after={self.position}"
        async with client.stream("GET", path, headers=headers) as answer:
            assert answer.status_code == 200, await answer.aread()
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    self._take(json.loads(line[6:]))

    async def _websocket(self, url: str) -> None:
        address = url.replace("http", "ws") + "/v1/responses"
        async with connect(address, max_size=None, compression=None, open_timeout=60) as socket:
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


async def read_all(urls: list[str], response_id: str, began: list[int], cuts: list[int]) -> list[Reader]:
    """Read an answer from each of these positions on."""
    readers = [Reader(n, urls, response_id, cuts, at) for n, at in enumerate(began)]
    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits()) as client:
        return await asyncio.gather(*(reader.run(client) for reader in readers))


async def texts_of(store, response_id: str) -> dict[int, str]:
    """What each number of the tape says."""
    records = [r for r in await store.tapes.read(response_id, -1, limit=100_000) if isinstance(r.body, Delta)]
    return {r.first + n: piece for r in records for n, piece in enumerate(r.body.pieces)}


async def end_of(store, response_id: str) -> int:
    """The last number of the tape so far."""
    return (await store.tapes.read(response_id, -1, limit=100_000))[-1].last


def expire(running: RunningStore, response_id: str) -> None:
    """End the time to live of all that has one, however long it would be."""
    with redis.Redis(unix_socket_path=str(running.socket)) as client:
        keys = [key for key in client.scan_iter(f"*{response_id}*") if 0 < client.ttl(key) <= RESPONSE_TTL]
        assert any(key.endswith(b":tape") for key in keys), keys
        client.delete(*keys)


@asynccontextmanager
async def two_webs():
    """Two web processes, one store, one engine that writes until it is stopped; yields store twice, SDK, addresses."""
    async with AsyncExitStack() as stack:
        running = stack.enter_context(running_store())
        store = await ValkeyStore.open(running.url)
        stack.push_async_callback(store.close)
        engine, idle = FakeEngine(store), FakeEngine(store)
        engine.answer, engine.pause = [f"w{i} " for i in range(MOST)], 0.004
        idle.go.clear()
        webs = [await stack.enter_async_context(running_web(store, engine=one)) for one in (engine, idle)]
        while not await store.registry.models():
            await asyncio.sleep(0.005)
        yield running, store, webs[0].sdk(), [web.url for web in webs]


async def test_a_thousand_cuts_on_two_web_processes_lose_and_double_nothing():
    """Every reader has each token behind where it began once, whatever was cut, wherever and whenever it came back."""
    async with two_webs() as (_, store, sdk, urls):
        created = await sdk.responses.create(input="hi", background=True, max_output_tokens=MOST)
        cuts, positions = [CUTS], random.Random(1)
        reading = [asyncio.create_task(read_all(urls, created.id, [-1] * READERS, cuts))]
        while cuts[0] > 0 and not reading[0].done():
            await asyncio.sleep(0.1)
            if len(reading) <= JOINERS:
                began = positions.randint(-1, await end_of(store, created.id))
                reading.append(asyncio.create_task(read_all(urls, created.id, [began], cuts)))
        await sdk.responses.cancel(created.id)
        readers = [reader for group in await asyncio.gather(*reading) for reader in group]
        texts = await texts_of(store, created.id)
        late = [positions.randint(-1, max(texts)) for _ in range(LATE)]
        readers += await read_all(urls, created.id, late, [0])
        final = (await sdk.responses.retrieve(created.id)).output_text
    assert cuts[0] == 0 and {reader.whole for reader in readers} == {final} and len(final) > 100
    for reader in readers:
        behind = (text for number, text in texts.items() if number > reader.began)
        assert reader.text == "".join(behind), reader.began
    assert all(sum(reader.doors[door] for reader in readers) > CUTS // 10 for door in DOORS)
    assert len({reader.began for reader in readers}) > LATE // 2


async def test_behind_its_tape_an_answer_is_read_from_the_conversation():
    """The time to live is over: each door, at any position, brings the end with the whole text, at the old numbers."""
    async with two_webs() as (running, store, sdk, urls):
        created = await sdk.responses.create(input="hi", background=True, max_output_tokens=100)
        (live,) = await read_all(urls, created.id, [-1], [0])
        last, tokens = await end_of(store, created.id), max(await texts_of(store, created.id))
        expire(running, created.id)
        with pytest.raises(NotFound):
            await end_of(store, created.id)
        late = await read_all(urls, created.id, [*range(-1, tokens + 1)], [0])
        async with httpx.AsyncClient(timeout=60) as http:
            path = f"{urls[1]}/v1/responses/{created.id}?stream=true"
            done = await http.get(path, headers={"Last-Event-ID": str(last)})
            items = (await http.get(f"{urls[1]}/v1/conversations/{created.conversation.id}/items")).json()
    assert {reader.whole for reader in late} == {live.whole} == {items["data"][0]["content"][0]["text"]}
    assert done.status_code == 204
    assert {reader.position for reader in late} <= {last, last - 3}, (
        "the text is closed three numbers before the end"
    )
    first = tokens - 100
    assert [reader.text for reader in late] == [
        live.text if n <= first else "" for n in range(-1, tokens + 1)
    ]
