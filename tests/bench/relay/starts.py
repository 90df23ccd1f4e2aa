"""How long the first token takes when many ask at once."""

from __future__ import annotations

import asyncio
import time

from tests.bench.relay import client
from tests.bench.relay.arms import Arm
from tests.bench.relay.client import Door, Socket

TOKENS = 8


async def starts(arm: Arm, door: Door, streams: int, *, connected: bool = False) -> list[float]:
    """Ask `streams` times at once; return the ms until each has its first text.

    `connected`: on connections that were there before, WebSockets' handshakes included.
    """
    loop = asyncio.get_running_loop()
    head, command = door.request(arm.port, TOKENS)
    first = (head if command else b"", b"") if connected else (head, command)

    async def connect() -> Socket:
        _, socket = await loop.create_connection(lambda: Socket(first, door.ends), "127.0.0.1", arm.port)
        while connected and command and not socket.arrivals:
            await asyncio.sleep(0.001)
        return socket

    async with asyncio.timeout(client.READ_WITHIN):
        ready = await asyncio.gather(*(connect() for _ in range(streams))) if connected else []
        began = time.perf_counter()
        for socket in ready:
            socket.send(command or head)
        sockets = ready or await asyncio.gather(*(connect() for _ in range(streams)))
        await asyncio.gather(*(socket.ended for socket in sockets))
    return [(client.parse(door, socket.arrivals).pieces[0][0] - began) * 1000 for socket in sockets]
