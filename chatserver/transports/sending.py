"""A body that is sent as it comes: pings in silence, a deadline for clients that do not read, and an end when they go.

the request's task    parts of the body, end
the connection        says that the client has gone: the task is cancelled
one timer             the deadline, or the next ping
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.types import Message, Send

from chatserver.transports.lasting import Connection

SLICE = 32 * 1024
"""Bytes that a client has the time of the deadline for, and that wait for it in this process."""
_PART = {"type": "http.response.body", "more_body": True}
_PING = {**_PART, "body": b": ping\n"}
_END = {**_PART, "body": b"", "more_body": False}


class Sending:
    """Sends one body. Belongs to the task that makes it, which must `close` it.

    A library's task group for each connection costs more memory than all else that there is of it, and its cancel
    scope for each send more time than the send: decisions 14 and 32. Nor has a send a timer: one for the connection
    looks at the clock of the oldest send.
    """

    __slots__ = (
        "_connection",
        "_gone",
        "_late",
        "_pending",
        "_ping",
        "_pinging",
        "_send",
        "_since",
        "_task",
        "_timeout",
        "_timer",
    )

    def __init__(self, connection: Connection, send: Send, *, ping: float, timeout: float) -> None:
        """`ping`: seconds of silence after which a comment line is sent; `timeout`: in which something must be read."""
        task = asyncio.current_task()
        assert task is not None
        loop = task.get_loop()
        self._task = task
        self._send = send
        self._ping, self._timeout = ping, timeout
        self._pending = 0
        self._since = loop.time()  # when the oldest pending send began, or the last one did
        self._gone = self._late = False
        self._pinging: asyncio.Task[None] | None = None
        self._timer = loop.call_later(min(ping, timeout), self._look)
        self._connection = connection
        connection.when_lost(self._cut)

    async def run(self, body: AsyncIterator[bytes]) -> None:
        """Send the body of an answer that was begun.

        Returns early if the client goes; raises TimeoutError if it reads nothing for too long.
        """
        try:
            async for part in body:
                for at in range(0, len(part), SLICE):
                    await self._one({**_PART, "body": part[at : at + SLICE]})
            await self._one(_END)
        except asyncio.CancelledError:
            if not (self._late or self._gone) or self._task.uncancel() > 0:
                raise
            if self._late:
                raise TimeoutError(f"nothing was read for {self._timeout:g} s") from None

    def close(self) -> None:
        """Stop the clock, and wait for nobody's going. Idempotent."""
        self._timer.cancel()
        self._connection.when_lost(None)
        if self._pinging is not None:
            self._pinging.cancel()

    async def _one(self, message: Message) -> None:
        if self._pending == 0:
            self._since = self._task.get_loop().time()
        self._pending += 1
        await self._send(message)
        self._pending -= 1
        if self._pending:
            self._since = self._task.get_loop().time()

    async def _send_ping(self) -> None:
        if not self._pending:  # else it would come amid an event
            await self._one(_PING)
        self._pinging = None

    def _cut(self) -> None:
        self._gone = True
        self._timer.cancel()
        self._task.cancel()

    def _look(self) -> None:
        loop = self._task.get_loop()
        now = loop.time()
        due = self._since + (self._timeout if self._pending else self._ping)
        if due <= now:
            if self._pending:
                self._late = True
                self._task.cancel()
                return
            due = now + self._ping
            self._pinging = loop.create_task(self._send_ping())
        self._timer = loop.call_at(min(due, now + self._ping), self._look)
