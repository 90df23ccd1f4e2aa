"""Whether anybody is still there, at the other end of a WebSocket."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable


class Heartbeat:
    """Pings in regular intervals, and says so once when a ping was not answered in time."""

    __slots__ = ("_every", "_late", "_loop", "_payload", "_send", "_sent_at", "_timer", "_within")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        every: float,
        within: float,
        send: Callable[[bytes], None],
        late: Callable[[], None],
    ) -> None:
        """`every`, `within`: seconds between pings, and for the answer. `send` sends a ping with a payload."""
        self._loop = loop
        self._every, self._within = every, within
        self._send, self._late = send, late
        self._payload: bytes | None = None
        self._sent_at = 0.0
        self._timer = loop.call_later(every, self._beat)

    def heard(self, payload: bytes | bytearray | memoryview) -> None:
        """Take a pong; only that to the newest ping says anything."""
        if self._payload is not None and payload == self._payload:
            self._payload = None
            self._timer.cancel()
            took = self._loop.time() - self._sent_at
            self._timer = self._loop.call_later(max(0.0, self._every - took), self._beat)

    def stop(self) -> None:
        """Ping no more, and hear nothing."""
        self._payload = None
        self._timer.cancel()

    def _beat(self) -> None:
        if self._payload is not None:
            self._late()
            return
        self._payload, self._sent_at = secrets.token_bytes(4), self._loop.time()
        self._timer = self._loop.call_later(self._within, self._beat)
        self._send(self._payload)
