"""One connection to a server that has been opened: many callers ask on it, and their replies come back in that order.

    ask ─┐                                                      ┌─ replies ─> the first caller
    ask ─┼─ what is asked in one turn of the loop: two writes ─>│  server
    ask ─┘                                                      └─ replies ─> …

redis-py opens connections (URL, TLS, authentication). Its own way of sending and reading costs several times what the
server needs for a step, and lends a connection to one caller at a time: see decision 14.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection, DefaultParser
from redis.exceptions import ConnectionError as RefusedConnection

Reply = Any
"""bytes, int, None, a list of replies, or a ResponseError."""

MAX_ASKED = 1024
"""Exchanges under way on one connection; callers past it wait, within their time-out."""
TOGETHER = 16
"""Exchanges that are kept for one write at most."""
CLOSED = "the server closed the connection"
_MISSING = object()


class LinkLost(Exception):
    """The server did not answer; whether the commands ran is unknown. `str(error)` says what happened."""


class Taken:
    """The transport of a connection that redis-py has opened, for as long as this is kept."""

    __slots__ = ("_writer", "ended", "transport")

    def __init__(self, connection: AbstractConnection) -> None:
        """Take it away from the connection, which forgets it: there is no public way."""
        reader, writer = connection._reader, connection._writer
        assert reader is not None and writer is not None, "expected an opened connection"
        self.ended = reader.at_eof() or writer.transport.is_closing()
        """Whether it was closed before it was taken: nobody else was told."""
        connection._reader = connection._writer = None
        self._writer = writer  # it closes the transport when nobody keeps it
        self.transport: asyncio.Transport = writer.transport  # type: ignore[assignment]


class Asked:
    """One exchange: how many replies it takes, until when (the loop's time), and for whom."""

    __slots__ = ("count", "due", "future", "replies", "timeout")

    def __init__(self, count: int, due: float, timeout: float, future: asyncio.Future[list[Reply]]) -> None:
        self.count = count
        self.due = due
        self.timeout = timeout
        self.future = future
        self.replies: list[Reply] = []


class Pipe(asyncio.Protocol):
    """Takes over an opened connection. Once `ended` nothing can be asked any more: nothing is lost with it then."""

    def __init__(self, taken: Taken) -> None:
        self._taken = taken
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=DefaultParser.parse_error, notEnoughData=_MISSING)
        self._asked: deque[Asked] = deque()
        self._kept: list[bytes] = []
        self.heard = False
        """Whether the server has answered anything."""
        self._wrote = self._paused = self._late = False
        self._waiting: list[asyncio.Future[None]] = []
        self._looks_at = float("inf")
        self._timer: asyncio.TimerHandle | None = None
        self._transport = taken.transport
        self._transport.set_protocol(self)
        if taken.ended:
            self.close()

    @property
    def ended(self) -> bool:
        """Whether nothing more can be asked: it was closed or lost, or did not answer in time."""
        return self._late or self._transport.is_closing()

    @property
    def full(self) -> bool:
        """Whether callers should wait until `room`."""
        return self._paused or len(self._asked) >= MAX_ASKED

    async def room(self) -> None:
        """Return when there is room again, or the connection has ended."""
        while self.full and not self.ended:
            waiter = self._loop.create_future()
            self._waiting.append(waiter)
            await waiter

    def ask(self, packed: bytes, count: int, timeout: float) -> asyncio.Future[list[Reply]]:
        """Send packed commands that have `count` replies; return what will have them, or LinkLost.

        It may be cancelled: the replies are dropped then.
        """
        future = self._loop.create_future()
        due = self._loop.time() + timeout
        self._asked.append(Asked(count, due, timeout, future))
        if due < self._looks_at:
            self._look_at(due)
        self._write(packed)
        return future

    def close(self) -> None:
        """Close it; who waits gets LinkLost."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Hand replies to who asked."""
        self.heard = True
        reader = self._reader
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not _MISSING:
                self._take(reply)
        except (hiredis.ProtocolError, LookupError) as error:
            self._lose(LinkLost(f"not the Redis protocol: {error!r}"))
            self._transport.abort()
        if self._waiting and not self.full:
            self._admit()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody."""
        self._lose(LinkLost(" ".join(str(exc or CLOSED).split())[:200]))

    def pause_writing(self) -> None:
        """Let callers wait."""
        self._paused = True

    def resume_writing(self) -> None:
        """Let them in again."""
        self._paused = False
        self._admit()

    def _take(self, reply: Reply) -> None:
        asked = self._asked[0]
        asked.replies.append(reply)
        if isinstance(reply, RefusedConnection) and not asked.future.done():
            asked.future.set_exception(LinkLost(str(reply)))  # still loading, too many clients, …
        if len(asked.replies) == asked.count:
            self._asked.popleft()
            if not asked.future.done():
                asked.future.set_result(asked.replies)
            if self._late and not self._asked:
                self._transport.abort()

    def _write(self, packed: bytes) -> None:
        """Write at once what is asked first in a turn of the loop, and the rest of that turn in one piece."""
        if self._wrote:
            self._kept.append(packed)
            if len(self._kept) >= TOGETHER:
                self._flush()
        else:
            self._wrote = True
            self._loop.call_soon(self._end_turn)
            self._transport.write(packed)

    def _end_turn(self) -> None:
        self._wrote = False
        self._flush()

    def _flush(self) -> None:
        kept, self._kept = self._kept, []
        if kept and not self._transport.is_closing():
            self._transport.write(b"".join(kept))

    def _look_at(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._looks_at = due
        self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        """Give up what is overdue. Replies to it may still come, so nothing more is asked here."""
        now = self._loop.time()
        self._looks_at = float("inf")
        for asked in self._asked:
            if asked.due <= now:
                self._late = True  # also where nobody waits for it any more: the server owes it
                if not asked.future.done():
                    asked.future.set_exception(LinkLost(f"no answer within {asked.timeout:g} s"))
        left = [asked.due for asked in self._asked if not (asked.future.done() and self._late)]
        if left:
            self._look_at(min(left))
        elif self._late:
            self._transport.abort()
        if self._late:
            self._admit()

    def _lose(self, error: LinkLost) -> None:
        if self._timer is not None:
            self._timer.cancel()
        asked, self._asked = self._asked, deque()
        for one in asked:
            if not one.future.done():
                one.future.set_exception(error)
        self._admit()

    def _admit(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
