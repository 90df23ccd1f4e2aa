"""Parts of uvicorn's connections, without what an idle one never uses.

Every queue of Python's standard library takes 0.7 KiB when it is empty, and an `asyncio.Event` has one. Each connection
had three such objects; thousands of connections wait for one thing at a time, if for any.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class Signal(asyncio.Event):
    """An event that keeps a list of waiters only while there are some."""

    def __init__(self) -> None:
        self._is_set = False
        self._waiting: list[asyncio.Future[bool]] | None = None

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, and wake all that wait."""
        self._is_set = True
        waiting, self._waiting = self._waiting, None
        for one in waiting or ():
            if not one.done():
                one.set_result(True)

    def clear(self) -> None:
        """Unset it."""
        self._is_set = False

    async def wait(self) -> bool:  # type: ignore[override]  # asyncio's says Literal[True]
        """Return True once it is set."""
        if self._is_set:
            return True
        one = asyncio.get_running_loop().create_future()
        if self._waiting is None:
            self._waiting = []
        self._waiting.append(one)
        try:
            return await one
        finally:
            if self._waiting is not None and one in self._waiting:
                self._waiting.remove(one)


class Flow(FlowControl):
    """uvicorn's flow control of one connection."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.read_paused = self.write_paused = False
        self._is_writable_event = Signal()
        self._is_writable_event.set()


class Ahead(list[Any]):
    """Requests that were sent ahead: the two ways in which uvicorn uses its queue of them. It is short."""

    def appendleft(self, one: Any) -> None:
        """Add one."""
        self.insert(0, one)


class Head:
    """In place of the transport of one answer that has not begun: its head goes out with the first part of its body.

    One write instead of two for every answer; it waits for the body to the end of the loop's turn at most.
    """

    __slots__ = ("_cycle", "_head", "_transport")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._transport: asyncio.Transport = cycle.transport
        self._head = b""

    def write(self, data: bytes) -> None:
        """Keep the head; then write it with what follows."""
        if self._head or not data:
            self._head += data
            self._send()
        else:
            self._head = data
            asyncio.get_running_loop().call_soon(self._send)

    def is_closing(self) -> bool:
        """Whether the connection is being closed."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Write the head, and close."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        head, self._head = self._head, b""
        self._cycle.transport = self._transport
        if head and not self._transport.is_closing():
            self._transport.write(head)
