"""What came on a WebSocket and waits for the application, and when more is read.

messages waiting: at most MAX_WAITING                           `full`
messages, pings, empty frames: RATE a second on average         read more slowly
nothing is read while a message waits, or nothing can be written
"""

from __future__ import annotations

import asyncio

from starlette.types import Message

from chatserver.transports.lean import Signal

MAX_WAITING = 1024
"""Messages that wait for the application, on one WebSocket."""
RATE = 200.0
"""Messages, pings, pongs and empty parts of messages a second that are read from one WebSocket, on average."""
BURST = 1000.0
"""How many of them may come at once."""


class Inbox:
    """Messages in their order. Reading stops and starts with them, not for each that somebody waits for."""

    __slots__ = (
        "_brake",
        "_closing",
        "_counted",
        "_credit",
        "_loop",
        "_messages",
        "_reader",
        "_reading",
        "_transport",
        "writable",
    )

    def __init__(self, transport: asyncio.Transport, first: Message) -> None:
        """`transport` is being read."""
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._messages = [first]  # a list: the standard library's queues take 0.7 KiB when they are empty
        self._reader: asyncio.Future[None] | None = None  # the application, while it waits for a message
        self._reading, self._closing = True, False
        self._credit, self._counted = BURST, self._loop.time()
        self._brake: asyncio.TimerHandle | None = None  # while the client has sent more than it may
        self.writable = Signal()
        """Whether the client reads what is written; call `steer` when it changes."""
        self.writable.set()

    @property
    def full(self) -> bool:
        """Whether more wait than may."""
        return len(self._messages) > MAX_WAITING

    def count(self) -> None:
        """Something came that the client may not send as often as it likes."""
        self._earn()
        self._credit -= 1
        if self._credit < 0 and self._brake is None:
            self._brake = self._loop.call_later(-self._credit / RATE, self._release)
            self.steer()

    def put(self, message: Message) -> None:
        """Have the application take a message."""
        self._messages.append(message)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)  # it takes this one before anything more is read
        else:
            self.steer()

    def close(self, message: Message) -> None:
        """Put the last message. Reading goes on: the client may answer a close frame."""
        self._closing = True
        self.put(message)

    def stop(self) -> None:
        """Nothing comes any more, nor can be sent: whoever waits to send learns it."""
        if self._brake is not None:
            self._brake.cancel()
        self.writable.set()

    async def get(self) -> Message:
        """Return the next message; reading goes on when none is left and nothing else forbids it."""
        while not self._messages:
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        message = self._messages.pop(0)
        self.steer()
        return message

    def steer(self) -> None:
        """Read, or do not."""
        wanted = not (self._messages and not self._closing) and self._brake is None and self.writable.is_set()
        if wanted is self._reading or self._transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _release(self) -> None:
        self._earn()
        if self._credit < 0:  # more came in the same piece
            self._brake = self._loop.call_later(-self._credit / RATE, self._release)
        else:
            self._brake = None
            self.steer()

    def _earn(self) -> None:
        now = self._loop.time()
        self._credit = min(BURST, self._credit + (now - self._counted) * RATE)
        self._counted = now
