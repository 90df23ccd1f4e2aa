"""Many streams from one process, cheap enough to leave the measured server most of the machine.

While streams run, only (time, bytes) is kept; what it means is worked out afterwards.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import orjson

PROMPT = "Tell me about tides."
READ_WITHIN = 120.0
"""Seconds in which all streams must have ended."""

PING = b"\x89\x04"
"""How a server's ping begins; never in JSON, so it can be looked for anywhere."""

Arrival = tuple[float, bytes]


@dataclass(frozen=True, slots=True)
class Door:
    """How one kind of stream is asked for and understood."""

    name: str
    request: Callable[[int, int], tuple[bytes, bytes]]
    """(port, tokens) -> what is written once connected, and what after the first answer."""
    ends: bytes
    """What only the end of a stream contains."""
    events: Callable[[list[Arrival]], Iterator[Arrival]]


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream that was read to its end: its text, and how much of it came when."""

    text: str
    tokens: int
    pieces: list[tuple[float, int, int]]
    """(time, characters, tokens; 0 if the door does not tell) of each delta."""


class Socket(asyncio.Protocol):
    """One connection: sends its request, keeps what comes with its time."""

    def __init__(self, request: tuple[bytes, bytes], ends: bytes) -> None:
        self.arrivals: list[Arrival] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request, self._next = request
        self._ends, self._tail = ends, b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.arrivals.append((time.perf_counter(), data))
        if self._next and self.transport is not None:
            self.transport.write(self._next)
            self._next = b""
        if (at := data.find(PING)) >= 0 and self.transport is not None:
            self.transport.write(b"\x8a\x84\0\0\0\0" + data[at + 2 : at + 6])
        if self._ends in data or self._ends in self._tail + data[: len(self._ends)]:
            self.close()
        self._tail = data[-len(self._ends) :]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            head = b"".join(data for _, data in self.arrivals)
            self.ended.set_exception(ConnectionError(f"cut off by the server: {exc} {head[-500:]!r}"))

    def send(self, data: bytes) -> None:
        """Write what was not to be written before."""
        if self.transport is not None:
            self.transport.write(data)

    def close(self) -> None:
        """Stop reading."""
        if not self.ended.done():
            self.ended.set_result(None)
        if self.transport is not None:
            self.transport.close()


def parse(door: Door, arrivals: list[Arrival]) -> Stream:
    """Return what a stream said. Raises AssertionError if a token is missing, doubled or out of order."""
    text, tokens, last, pieces, whole = [], 0, -1, [], None
    for at, data in door.events(arrivals):
        if data == b"[DONE]":
            continue
        event = orjson.loads(data)
        kind = event.get("type")
        if kind is None:
            assert "error" not in event, event
            if event.get("usage"):
                tokens = event["usage"]["completion_tokens"]
            delta = event["choices"][0]["delta"].get("content") if event["choices"] else None
            if delta:
                text.append(delta)
                pieces.append((at, len(delta), 0))
            continue
        if kind == "response.queue_position":
            continue
        number = event["sequence_number"]
        assert number > last, (last, event)
        if kind == "response.output_text.delta":
            text.append(event["delta"])
            pieces.append((at, len(event["delta"]), number - last))
        elif kind == "response.output_text.done":
            whole = event["text"]
        elif kind in ("response.incomplete", "response.completed"):
            tokens = event["response"]["usage"]["output_tokens"]
            assert sum(n for _, _, n in pieces) == tokens, (tokens, pieces[-1])
        assert kind not in ("error", "response.failed"), event
        last = number
    found = "".join(text)
    assert whole is None or whole == found, "the deltas are not the text"
    assert tokens, arrivals[-1]
    return Stream(found, tokens, pieces)


def digest(streams: Sequence[Stream]) -> str:
    """Return the hash of the one text that all streams must have brought."""
    texts = {stream.text for stream in streams}
    assert len(texts) == 1, f"{len(texts)} different texts"
    return hashlib.sha256(texts.pop().encode()).hexdigest()[:16]


def _post(path: str, port: int, body: dict[str, object]) -> bytes:
    data = orjson.dumps(body)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def _responses(tokens: int) -> dict[str, object]:
    return {"input": PROMPT, "max_output_tokens": tokens, "temperature": 0, "ignore_eos": True}


def _ask_sse(port: int, tokens: int) -> tuple[bytes, bytes]:
    return _post(
        "/v1/responses", port, {"model": "scripted", "stream": True, "store": False} | _responses(tokens)
    ), b""


def _ask_chat(port: int, tokens: int) -> tuple[bytes, bytes]:
    body = {
        "model": "scripted",
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return _post("/v1/chat/completions", port, body), b""


def _ask_websocket(port: int, tokens: int) -> tuple[bytes, bytes]:
    key = base64.b64encode(os.urandom(16)).decode()
    handshake = (
        f"GET /v1/responses HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    body = {"type": "response.create", "model": "scripted", "store": False} | _responses(tokens)
    return handshake.encode(), masked(orjson.dumps(body))


def masked(data: bytes) -> bytes:
    """Return a text frame as a client must send it; the mask is zero, so the bytes stay as they are."""
    length = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
    return b"\x81" + length + b"\0\0\0\0" + data


def sse_events(arrivals: list[Arrival]) -> Iterator[Arrival]:
    """Yield the data of server-sent events, each with the time at which its last byte came."""
    text = b""
    for at, data in _unchunked(arrivals):
        text += data
        *whole, text = text.split(b"\n\n")
        for event in whole:
            for line in event.split(b"\n"):
                if line.startswith(b"data: "):
                    yield at, line[6:]


def frames(arrivals: list[Arrival]) -> Iterator[Arrival]:
    """Yield the payloads of text frames."""
    buffer, opened = b"", False
    for at, data in arrivals:
        buffer += data
        if not opened:
            head, blank, rest = buffer.partition(b"\r\n\r\n")
            if not blank:
                continue
            assert b" 101 " in head, head
            opened, buffer = True, rest
        while len(buffer) >= 2:
            length, start = buffer[1], 2
            if length >= 126:
                start = 4 if length == 126 else 10
                length = int.from_bytes(buffer[2:start], "big")
            if len(buffer) < start + length:
                break
            if buffer[0] == 0x81:
                yield at, buffer[start : start + length]
            buffer = buffer[start + length :]


def _unchunked(arrivals: list[Arrival]) -> Iterator[Arrival]:
    """Yield the body of an HTTP answer in chunked coding."""
    buffer, opened = b"", False
    for at, data in arrivals:
        buffer += data
        if not opened:
            head, blank, rest = buffer.partition(b"\r\n\r\n")
            if not blank:
                continue
            assert b" 200 " in head, buffer[:2000]
            opened, buffer = True, rest
        while (eol := buffer.find(b"\r\n")) > 0:
            length = int(buffer[:eol], 16)
            if len(buffer) < eol + 4 + length:
                break
            if length:
                yield at, buffer[eol + 2 : eol + 2 + length]
            buffer = buffer[eol + 4 + length :]


SSE = Door("Responses, SSE", _ask_sse, b"\r\n0\r\n\r\n", sse_events)
CHAT = Door("Chat Completions, SSE", _ask_chat, b"\r\n0\r\n\r\n", sse_events)
WEBSOCKET = Door("Responses, WebSocket", _ask_websocket, b'"type":"response.incomplete"', frames)


async def connect(door: Door, port: int, tokens: int) -> Socket:
    """Open one stream."""
    loop = asyncio.get_running_loop()
    _, socket = await loop.create_connection(
        lambda: Socket(door.request(port, tokens), door.ends), "127.0.0.1", port
    )
    return socket
