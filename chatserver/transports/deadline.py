"""How long a client may read nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class SendDeadline:
    """Calls `on_late` once, when sends have stood still for `seconds`.

    A time-out for each send would cost more than the send. Here a send costs two assignments: one timer
    runs for the connection, and looks at the clock of the oldest pending send only when it fires.
    """

    __slots__ = ("_loop", "_on_late", "_pending", "_seconds", "_since", "_timer", "late")

    def __init__(self, seconds: float, on_late: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._on_late = on_late
        self._pending = 0
        self._since = 0.0
        self._timer = self._loop.call_later(seconds, self._look)
        self.late = False
        """Whether `on_late` was called."""

    def begin(self) -> None:
        """A send begins."""
        if self._pending == 0:
            self._since = self._loop.time()
        self._pending += 1

    def end(self) -> None:
        """A send went through: the others have their time anew."""
        self._pending -= 1
        if self._pending:
            self._since = self._loop.time()

    def close(self) -> None:
        """Stop looking. Idempotent."""
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        due = (self._since if self._pending else now) + self._seconds
        if due > now:
            self._timer = self._loop.call_at(due, self._look)
        else:
            self.late = True
            self._on_late()
