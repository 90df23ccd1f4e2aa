"""Readers for these measurements: many at once, some that read nothing, and what the kernel keeps for them."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
from collections.abc import Callable

import orjson

from tests.bench.relay import client
from tests.bench.relay.client import Socket

RAMP = 200
"""New connections a second."""
NARROW = 4096
"""Receive buffer of readers that stall: what they do not take is the server's to keep."""


class Stalled(Socket):
    """Reads `reads` times, then nothing more; never ends by itself."""

    def __init__(self, request: tuple[bytes, bytes], reads: int) -> None:
        super().__init__(request, b"never")
        self._reads = reads

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._reads -= 1
        if self._reads == 0 and self.transport is not None:
            self.transport.pause_reading()


async def open_all(
    make: Callable[[], Socket], count: int, port: int, *, ramp: int = RAMP, narrow: bool = False
) -> list[Socket]:
    """Open connections, `ramp` a second (0: at once), from several source addresses: ports are few."""
    loop = asyncio.get_running_loop()
    opened = []
    for n in range(count):
        plug = socket.socket()
        if narrow:
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW)
        plug.bind((f"127.0.0.{2 + n // 10_000}", 0))
        plug.setblocking(False)
        await loop.sock_connect(plug, ("127.0.0.1", port))
        _, one = await loop.create_connection(make, sock=plug)
        opened.append(one)
        if ramp:
            await asyncio.sleep(1 / ramp)
    return opened


def follow(response_id: bytes, after: int = -1) -> bytes:
    """Return the request that follows an answer over SSE."""
    query = b"stream=true" + (b"&starting_after=%d" % after if after >= 0 else b"")
    return b"GET /v1/responses/%b?%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % (response_id, query)


def numbers(one: Socket) -> list[int]:
    """The sequence numbers of the whole events that came."""
    events = (orjson.loads(data) for _, data in client.sse_events(one.arrivals))
    return [event["sequence_number"] for event in events]


def lateness(read: client.Stream, rate: float, since: float, until: float) -> list[float]:
    """How many ms each delta that came in that time was behind the stream's own earliest schedule."""
    numbered, number = [], 0
    for at, _, count in read.pieces:
        number += count
        numbered.append((at, at - number / rate))
    start = min(due for _, due in numbered)
    return [(due - start) * 1000 for at, due in numbered if since <= at < until]


def kernel_memory(port: int) -> int:
    """Bytes that the kernel keeps for the connections of a server that listens on `port`, on the server's side.

    Of each: what was received, what is queued to be sent, what is set aside for either. See ss(8), skmem.
    """
    listed = subprocess.run(
        ["ss", "-tmnH", "state", "connected", "sport", "=", f":{port}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout
    return sum(sum(map(int, found)) for found in _SKMEM.findall(listed))


_SKMEM = re.compile(r"skmem:\(r(\d+),rb\d+,t\d+,tb\d+,f(\d+),w(\d+),")
