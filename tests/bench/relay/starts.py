"""How long the first token takes when many ask at once."""

from __future__ import annotations

import asyncio
import time

from tests.bench.relay import client
from tests.bench.relay.arms import Arm
from tests.bench.relay.client import Door, Socket

TOKENS = 8


async def starts(arm: Arm, door: Door, streams: int) -> list[float]:
    """Ask `streams` times at once; return the ms until each has its first text."""
    loop = asyncio.get_running_loop()
    began = time.perf_counter()

    async def one() -> Socket:
        _, socket = await loop.create_connection(
            lambda: Socket(door.request(arm.port, TOKENS), door.ends), "127.0.0.1", arm.port
        )
        await socket.ended
        return socket

    async with asyncio.timeout(client.READ_WITHIN):
        sockets = await asyncio.gather(*(one() for _ in range(streams)))
    return [(client.parse(door, socket.arrivals).pieces[0][0] - began) * 1000 for socket in sockets]
