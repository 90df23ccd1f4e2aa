"""A TCP proxy that cuts its connections at random places."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


class Cutter:
    """Lets `budget()` bytes of each direction through, then resets the connection. `cuts` counts."""

    def __init__(self, target: str, seed: int) -> None:
        self._host, self._port = urlsplit(target).hostname, urlsplit(target).port
        self._random = random.Random(seed)
        self._tasks: set[asyncio.Task] = set()
        self.longest = 3000
        self.cuts = 0
        self.open = True
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.open:
            writer.transport.abort()
            return
        out_reader, out_writer = await asyncio.open_connection(self._host, self._port)
        up = asyncio.create_task(self._pump(reader, out_writer))
        down = asyncio.create_task(self._pump(out_reader, writer))
        self._tasks |= {up, down}
        await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        for task in (up, down):
            task.cancel()
        self._tasks -= {up, down}
        writer.transport.abort()
        out_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # some within the head of a request or an answer
        left = self._random.randrange(self.longest if self._random.random() < 0.8 else min(600, self.longest))
        while data := await reader.read(65536):
            writer.write(data[:left])
            await writer.drain()
            left -= len(data)
            if left <= 0:
                self.cuts += 1
                return

    def cut_all(self) -> None:
        for task in self._tasks:
            task.cancel()


@asynccontextmanager
async def cutting(target: str, seed: int) -> AsyncIterator[Cutter]:
    cutter = Cutter(target, seed)
    server = await asyncio.start_server(cutter.serve, "127.0.0.1", 0)
    cutter.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield cutter
    finally:
        cutter.open = False
        cutter.cut_all()
        server.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await server.wait_closed()
