"""Parts of uvicorn's connections, without what an idle one never uses.

Every queue of Python's standard library takes 0.7 KiB when it is empty, and an `asyncio.Event` has one. Each connection
had three such objects; thousands of connections wait for one thing at a time, if for any.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl


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
