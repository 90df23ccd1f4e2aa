"""One connection to a server that subscribes: messages as they come, and a look whether a silent peer still lives."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import hiredis

from chatserver.adapters.valkey.pipe import CLOSED, LinkLost, Reply, Taken

MAX_WAITING = 256
"""Messages that wait for who reads them; then the connection is not read for a while."""
_MISSING = object()
_PING = hiredis.pack_command(("PING",))

Message = tuple[bytes, bytes]
"""Channel and payload."""


class Subscription(asyncio.Protocol):
    """Takes over an opened connection, and subscribes. For one reader."""

    def __init__(self, taken: Taken, channels: Sequence[str], ping_after: float) -> None:
        """A peer that is silent for `ping_after` seconds is asked, and given up after as long again."""
        self._taken = taken
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(notEnoughData=_MISSING)
        self._waiting: deque[Message] = deque()
        self._sleep: asyncio.Future[None] | None = None
        self._lost: LinkLost | None = None
        self._ping_after = ping_after
        self._heard = True
        self._timer = self._loop.call_later(ping_after, self._look)
        self._missing = len(channels)
        taken.transport.set_protocol(self)
        if taken.ended:
            self._lose(CLOSED)
        else:
            taken.transport.write(hiredis.pack_command(("SUBSCRIBE", *channels)))  # type: ignore[arg-type]

    async def stands(self) -> None:
        """Return once all channels are subscribed to. Raises LinkLost."""
        while self._missing:
            await self._news()

    async def next(self) -> Message:
        """Return the next message. Raises LinkLost."""
        while not self._waiting:
            await self._news()
        return self._waiting.popleft()

    def close(self) -> None:
        """Close it. Idempotent."""
        self._timer.cancel()
        self._taken.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take messages, and answers to pings, which only tell of life."""
        self._heard = True
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not _MISSING:
                self._take(reply)
        except (hiredis.ProtocolError, LookupError) as error:
            self._lose(f"not the Redis protocol: {error!r}")
        if len(self._waiting) > MAX_WAITING:
            self._taken.transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the reader, behind what has come."""
        self._lose(str(exc or CLOSED))

    async def _news(self) -> None:
        if self._lost is not None:
            raise self._lost
        self._taken.transport.resume_reading()
        self._sleep = self._loop.create_future()
        try:
            await self._sleep
        finally:
            self._sleep = None

    def _take(self, reply: Reply) -> None:
        if isinstance(reply, hiredis.ReplyError):
            self._lose(str(reply))
        elif reply[0] == b"message":
            self._waiting.append((reply[1], reply[2]))
        elif reply[0] == b"subscribe":
            self._missing -= 1

    def _look(self) -> None:
        if not self._heard and self._taken.transport.is_reading():
            self._lose(f"no answer within {self._ping_after:g} s")
            return
        asked = not self._heard
        self._heard = False
        if not asked:
            self._taken.transport.write(_PING)
        self._timer = self._loop.call_later(self._ping_after, self._look)

    def _lose(self, why: str) -> None:
        if self._lost is None:
            self._lost = LinkLost(" ".join(why.split())[:200])
            self.close()
            self._wake()

    def _wake(self) -> None:
        if self._sleep is not None and not self._sleep.done():
            self._sleep.set_result(None)
