"""Lines from standard input without blocking: a pipe's, a file's, and a terminal's while an answer is written."""

from __future__ import annotations

import asyncio
import contextlib
import os
import termios
from collections import deque
from collections.abc import AsyncIterator, Callable

MAX_LINE = 1_000_000
"""Bytes of one line, which is one message; a longer one is cut there."""
STDIN = 0


class Lines:
    """The lines of a descriptor, one after the other."""

    def __init__(self, descriptor: int = STDIN) -> None:
        self._descriptor = descriptor
        self._rest = b""
        self._lines: deque[bytes] = deque()
        self._ended = False

    async def next(self) -> str | None:
        """Return the next line without its end, None behind the last."""
        while not self._lines and not self._ended:
            self._take(await self._read())
        return self._lines.popleft().decode(errors="replace") if self._lines else None

    async def _read(self) -> bytes:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()

        def on_ready() -> None:
            if not ready.done():
                ready.set_result(None)

        try:
            loop.add_reader(self._descriptor, on_ready)
        except PermissionError:  # a file: it is always ready
            return os.read(self._descriptor, 65536)
        try:
            await ready
        finally:
            loop.remove_reader(self._descriptor)
        return os.read(self._descriptor, 65536)

    def _take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._ended = not data
        if self._rest and (self._ended or len(self._rest) > MAX_LINE):
            lines.append(self._rest)
            self._rest = b""
        self._lines += lines


@contextlib.asynccontextmanager
async def listening(on_line: Callable[[str], None], descriptor: int = STDIN) -> AsyncIterator[None]:
    """Hand over the lines that are typed at a terminal while the block runs; they are not shown among the answer."""
    before = termios.tcgetattr(descriptor)
    silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(descriptor, termios.TCSADRAIN, silent)
    lines = Lines(descriptor)

    async def listen() -> None:
        while (line := await lines.next()) is not None:
            on_line(line)

    task = asyncio.create_task(listen())
    try:
        yield
    finally:
        task.cancel()
        # it must have let go of the descriptor before anybody else waits for it
        await asyncio.wait({task})
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
