"""A client that comes back: follows one answer through every fault, by both doors in turn, and keeps what it saw."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import orjson
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

GIVE_UP = 90.0
"""Seconds in which an answer must have ended."""
SILENCE = 12.0
"""Seconds in which a connection must bring something; SSE has pings more often."""
SSE, WEBSOCKET = "sse", "websocket"


class Dropped(Exception):
    """Raised by `on_event` to drop the connection, as a client does whose network went."""


class Follower:
    """Reads an answer until its end: `GET …?stream=true` with Last-Event-ID, `response.attach`, and again in turn."""

    def __init__(
        self,
        url: str | Callable[[], str],
        response_id: str,
        on_event: Callable[[Follower, dict[str, Any]], None] = lambda *_: None,
        *,
        give_up: float = GIVE_UP,
        doors: Sequence[str] = (SSE, WEBSOCKET),
    ) -> None:
        """`url`: of the server, or what says where to come back to. `doors`: what connections are made of, in turn."""
        self._give_up = give_up
        self.text = ""
        self.tokens = 0
        self.position = -1
        self.connections = 0
        self.end: dict[str, Any] = {}
        self.interrupted_at = 0.0
        """`time.monotonic()` of the first event that told of a lost engine."""
        self._where = url if callable(url) else lambda: url
        self._id = response_id
        self._doors = itertools.cycle(doors)
        if response_id[-1] in "02468ace":
            next(self._doors)  # one half of all answers begins with the other door
        self._on_event = on_event

    async def run(self) -> Follower:
        """Follow to the end. Raises AssertionError if a position comes twice, or the end does not come."""
        deadline = time.monotonic() + self._give_up
        async with httpx.AsyncClient(
            timeout=SILENCE, verify=False
        ) as client:  # certificates take long to read
            while not self.end:
                assert time.monotonic() < deadline, f"no end after {self._give_up:g} s at {self.position}"
                try:
                    await (self._read(client) if next(self._doors) == SSE else self._attach())
                except (httpx.TransportError, WebSocketException, OSError, TimeoutError, Dropped):
                    await asyncio.sleep(0.05)
        return self

    async def _read(self, client: httpx.AsyncClient) -> None:
        headers = {"Last-Event-ID": str(self.position)} if self.position >= 0 else {}
        async with client.stream(
            "GET", f"{self._where()}/v1/responses/{self._id}", params={"stream": "true"}, headers=headers
        ) as answer:
            if answer.status_code in (502, 503):
                await asyncio.sleep(0.1)
                return
            assert answer.status_code == 200, (answer.status_code, await answer.aread())
            self.connections += 1
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    self._take(orjson.loads(line[6:]))

    async def _attach(self) -> None:
        address = self._where().replace("http", "ws", 1) + "/v1/responses"
        async with connect(address, max_size=None, compression=None) as socket:
            attach = {"type": "response.attach", "response_id": self._id, "starting_after": self.position}
            await socket.send(orjson.dumps(attach).decode())
            self.connections += 1
            while not self.end:
                async with asyncio.timeout(SILENCE):
                    event = orjson.loads(await socket.recv())
                if event["type"] == "error":
                    assert event["status"] in (502, 503), event
                    return
                try:
                    self._take(event)
                except Dropped:
                    socket.transport.abort()
                    raise

    def _take(self, event: dict[str, Any]) -> None:
        if event["type"] == "error":
            return  # «come back»: the loop does
        if event["type"] == "response.queue_position":
            return  # differs from reader to reader, so it has no number
        number = event["sequence_number"]
        assert number > self.position, f"{number} came after {self.position}"
        if event["type"] == "response.output_text.delta":
            self.text += event["delta"]
            self.tokens += number - self.position
        if event.get("recovery", {}).get("state") == "interrupted":
            self.interrupted_at = self.interrupted_at or time.monotonic()
        if event["type"] in ("response.completed", "response.incomplete", "response.failed"):
            self.end = event["response"]
        self.position = number
        self._on_event(self, event)
