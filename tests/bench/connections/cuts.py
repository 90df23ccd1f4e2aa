"""Readers that are cut off at random, on both doors and several processes: what they have in the end is whole."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx
import orjson

from tests.bench.connections.arms import ASK, HANDSHAKE, Figures
from tests.bench.connections.readers import follow
from tests.bench.relay import client
from tests.bench.relay.client import Socket, masked
from tests.bench.report import percentile
from tests.fleet import Process

READERS = 100
ANSWERS = 20
TOKENS = 400
PATIENCE = 3
"""Arrivals that a reader takes before it is cut, at most."""
WITHIN = 20.0
"""Seconds in which something must come after a resumption."""
ENDS = ("response.completed", "response.incomplete")


class Cut(Socket):
    """A connection that is lost after so many arrivals."""

    def __init__(self, request: tuple[bytes, bytes], arrivals: int, heads: int) -> None:
        """`heads`: arrivals of the handshake, which do not count."""
        super().__init__(request, b"never")
        self._left = arrivals + heads

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._left -= 1
        if self._left == 0 and self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


@dataclass(slots=True)
class Reader:
    """One client of one answer, cut again and again."""

    response_id: str
    dice: random.Random
    position: int = -1
    text: str = ""
    tokens: int = 0
    cuts: int = 0
    over: bool = False
    waits: list[float] = field(default_factory=list)

    async def run(self, webs: Sequence[Process]) -> None:
        """Read to the end. Raises AssertionError if a number comes twice, or nothing comes."""
        while not self.over:
            await self._read(self.dice.choice(webs).port)
            self.cuts += not self.over

    async def _read(self, port: int) -> None:
        arrivals, began = self.dice.randint(1, PATIENCE), time.perf_counter()
        if self.dice.random() < 0.5:
            request, events, heads = (
                (follow(self.response_id.encode(), self.position), b""),
                client.sse_events,
                0,
            )
        else:
            attach = {"type": "response.attach", "response_id": self.response_id}
            if self.position >= 0:
                attach["starting_after"] = self.position  # type: ignore[assignment]
            request, events, heads = (HANDSHAKE, masked(orjson.dumps(attach))), client.frames, 1
        loop = asyncio.get_running_loop()
        _, one = await loop.create_connection(lambda: Cut(request, arrivals, heads), "127.0.0.1", port)
        try:
            async with asyncio.timeout(WITHIN):
                await one.ended
        except TimeoutError:
            assert one.arrivals, f"nothing came after {self.position}"
        one.close()
        for at, data in events(one.arrivals):
            if len(self.waits) == self.cuts:
                self.waits.append(at - began)
            self._take(orjson.loads(data))

    def _take(self, event: dict) -> None:
        if "sequence_number" not in event:
            assert "queue" in event or event.get("queue_position"), event
            return
        number = event["sequence_number"]
        assert number > self.position, f"{number} came after {self.position}"
        if event["type"] == "response.output_text.delta":
            self.text += event["delta"]
            self.tokens += number - self.position
        if event["type"] in ENDS:
            self.over = True
            assert event["response"]["usage"]["output_tokens"] == TOKENS
        self.position = number


async def cuts(webs: Sequence[Process], wanted: int) -> Figures:
    """Cut readers until `wanted` connections are lost; what each has is the whole answer, once."""
    lost, waits, round_ = 0, list[float](), 0
    while lost < wanted:
        round_ += 1
        async with httpx.AsyncClient(base_url=webs[0].url, timeout=30) as http:
            names = [await _begin(http) for _ in range(ANSWERS)]
            readers = [
                Reader(names[n % ANSWERS], random.Random(round_ * READERS + n)) for n in range(READERS)
            ]
            await asyncio.gather(*(reader.run(webs) for reader in readers))
            texts = {name: await _text(http, name) for name in names}
        for reader in readers:
            assert reader.tokens == TOKENS, (reader.tokens, TOKENS)
            assert reader.text == texts[reader.response_id]
        lost += sum(reader.cuts for reader in readers)
        waits += [wait for reader in readers for wait in reader.waits[1:]]
    return {
        "cuts": float(lost),
        "p50 ms": percentile(waits, 0.5) * 1000,
        "p99 ms": percentile(waits, 0.99) * 1000,
        "last ms": max(waits) * 1000,
    }


async def _begin(http: httpx.AsyncClient) -> str:
    answer = await http.post("/v1/responses", json={**ASK, "max_output_tokens": TOKENS})
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


async def _text(http: httpx.AsyncClient, name: str) -> str:
    async with asyncio.timeout(WITHIN):
        while (found := (await http.get(f"/v1/responses/{name}")).json())["status"] == "in_progress":
            await asyncio.sleep(0.1)
    return found["output"][0]["content"][0]["text"]
