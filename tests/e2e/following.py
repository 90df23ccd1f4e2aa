"""A client that comes back: follows one answer over SSE through every fault, and keeps what it saw."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx
import orjson

GIVE_UP = 40.0
"""Seconds in which an answer must have ended."""


class Dropped(Exception):
    """Raised by `on_event` to drop the connection, as a client does whose network went."""


class Follower:
    """Reads `GET /v1/responses/{id}?stream=true` with Last-Event-ID, again and again, until the end."""

    def __init__(
        self,
        url: str | Callable[[], str],
        response_id: str,
        on_event: Callable[[Follower, dict[str, Any]], None] = lambda *_: None,
        *,
        give_up: float = GIVE_UP,
    ) -> None:
        """`url`: of the server, or what says where to come back to."""
        self._give_up = give_up
        self.text = ""
        self.tokens = 0
        self.position = -1
        self.connections = 0
        self.end: dict[str, Any] = {}
        self.interrupted_at = 0.0
        """`time.monotonic()` of the first event that told of a lost engine."""
        self._where = url if callable(url) else lambda: url
        self._path = f"/v1/responses/{response_id}"
        self._on_event = on_event

    async def run(self) -> Follower:
        """Follow to the end. Raises AssertionError if a position comes twice, or the end does not come."""
        deadline = time.monotonic() + self._give_up
        async with httpx.AsyncClient(timeout=10) as client:
            while not self.end:
                assert time.monotonic() < deadline, f"no end after {self._give_up:g} s at {self.position}"
                try:
                    await self._read(client)
                except (httpx.TransportError, Dropped):
                    await asyncio.sleep(0.05)
        return self

    async def _read(self, client: httpx.AsyncClient) -> None:
        headers = {"Last-Event-ID": str(self.position)} if self.position >= 0 else {}
        async with client.stream(
            "GET", self._where() + self._path, params={"stream": "true"}, headers=headers
        ) as answer:
            if answer.status_code in (502, 503):
                await asyncio.sleep(0.1)
                return
            assert answer.status_code == 200, (answer.status_code, await answer.aread())
            self.connections += 1
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    self._take(orjson.loads(line[6:]))

    def _take(self, event: dict[str, Any]) -> None:
        if event["type"] == "error":
            return  # «come back»: the loop does
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
