"""A body that is sent as it comes: pings in silence, a deadline for clients that do not read, and an end when they go.

the request's task    start, parts of the body, end
a second task         waits for the client to go, and then cancels the first
two timers            the deadline; the next ping
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.types import Message, Receive, Send

from chatserver.transports.deadline import SendDeadline

SLICE = 32 * 1024
"""Bytes that a client has the time of the deadline for, and that wait for it in this process."""
_PART = {"type": "http.response.body", "more_body": True}
_PING = {**_PART, "body": b": ping\n"}
_END = {**_PART, "body": b"", "more_body": False}


class Sending:
    """Sends one body. Belongs to the task that makes it, which must `close` it.

    A library's task group for each connection costs more memory than all else that there is of it, and its cancel
    scope for each send more time than the send: decisions 14 and 32.
    """

    __slots__ = ("_deadline", "_gone", "_ping", "_pinging", "_seconds", "_send", "_task")

    def __init__(self, receive: Receive, send: Send, *, ping: float, timeout: float) -> None:
        """`ping`: seconds of silence after which a comment line is sent; `timeout`: in which something must be read."""
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._send = send
        self._seconds = ping
        self._deadline = SendDeadline(timeout, task.cancel)
        self._ping = task.get_loop().call_later(ping, self._ping_if_silent)
        self._pinging: asyncio.Task[None] | None = None
        self._gone = asyncio.create_task(_gone(receive))
        self._gone.add_done_callback(self._cut)

    async def run(self, start: Message, body: AsyncIterator[bytes]) -> None:
        """Send. Returns early if the client goes; raises TimeoutError if it reads nothing for too long."""
        try:
            await self._one(start)
            async for part in body:
                for at in range(0, len(part), SLICE):
                    await self._one({**_PART, "body": part[at : at + SLICE]})
            self._gone.remove_done_callback(self._cut)  # the end of the answer looks like the client's, too
            await self._one(_END)
        except asyncio.CancelledError:
            if not (self._deadline.late or self._gone.done()) or self._task.uncancel() > 0:
                raise
            if self._deadline.late:
                raise TimeoutError(f"nothing was read for {self._deadline.seconds:g} s") from None

    def close(self) -> None:
        """Stop the clocks and the second task. Idempotent."""
        self._deadline.close()
        self._ping.cancel()
        self._gone.remove_done_callback(self._cut)
        self._gone.cancel()
        if self._pinging is not None:
            self._pinging.cancel()

    async def _one(self, message: Message) -> None:
        self._deadline.begin()
        await self._send(message)
        self._deadline.end()

    async def _send_ping(self) -> None:
        if not self._deadline.pending:  # else it would come amid an event
            await self._one(_PING)

    def _cut(self, _gone: asyncio.Task[None]) -> None:
        self._deadline.close()
        self._task.cancel()

    def _ping_if_silent(self) -> None:
        loop = self._task.get_loop()
        due = self._deadline.since + self._seconds
        if due <= loop.time():
            due = loop.time() + self._seconds
            self._pinging = loop.create_task(self._send_ping())
        self._ping = loop.call_at(due, self._ping_if_silent)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
