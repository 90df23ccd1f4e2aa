"""How long a client may read nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class SendDeadline:
    """Calls `on_late` once, when sends have stood still for `seconds`.

    A time-out for each send would cost more than the send. Here a send costs two assignments: one timer
    runs for the connection, and looks at the clock of the oldest pending send only when it fires.
    """

    __slots__ = ("_loop", "_on_late", "_timer", "late", "pending", "seconds", "since")

    def __init__(self, seconds: float, on_late: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self.seconds = seconds
        self._on_late = on_late
        self.pending = 0
        """How many sends have not gone through."""
        self.since = self._loop.time()
        """When the oldest of them began, or the last one did; the event loop's time."""
        self._timer = self._loop.call_later(seconds, self._look)
        self.late = False
        """Whether `on_late` was called."""

    def begin(self) -> None:
        """A send begins."""
        if self.pending == 0:
            self.since = self._loop.time()
        self.pending += 1

    def end(self) -> None:
        """A send went through: the others have their time anew."""
        self.pending -= 1
        if self.pending:
            self.since = self._loop.time()

    def close(self) -> None:
        """Stop looking. Idempotent."""
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        due = (self.since if self.pending else now) + self.seconds
        if due > now:
            self._timer = self._loop.call_at(due, self._look)
        else:
            self.late = True
            self._on_late()
