"""One reader's place on one tape: history from the store, then what is announced, through one cursor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from chatserver.domain.tape import (
    OPENING,
    Accepted,
    Cursor,
    Delta,
    Ended,
    Gap,
    Interrupted,
    Queued,
    Record,
    Waiting,
)
from chatserver.errors import ChatServerError
from chatserver.ports.tapes import Attached, Tapes
from chatserver.service.web.pages import READ_TOKENS, join, page_after
from chatserver.service.web.patience import patiently

MAX_TEXT = 32 * 1024
"""Characters that wait for one reader in memory. Past it they are forgotten: the store has them."""
MAX_TOKENS = 256
"""Tokens that wait for one reader: a record of one token takes about 400 bytes, whatever its text."""
IDLE = 5.0
"""Seconds of silence after which a follower looks into the store."""
FIRST_PAGE = 8
"""Records in one read, before it is known how many tokens they have."""
SLOW_READER = "slow_reader"
RESTARTING = "server_restarting"
"""Codes of the errors that end a reader, not its answer."""
_QUEUED = (Accepted, Queued, Interrupted)
"""After these a job waits for an engine."""


class Follower:
    """One reader's place on one tape. Not for two tasks at once; `batch` may be cancelled without loss."""

    def __init__(
        self,
        tapes: Tapes,
        response_id: str,
        after: int,
        *,
        web_id: str,
        watched: bool,
        leave: Callable[[Follower], None],
        begun: list[Record] | None = None,
    ) -> None:
        """`begun`: all that was announced of a tape that the caller began: then nothing has to be read first."""
        self.response_id = response_id
        self._tapes = tapes
        self._web_id = web_id
        self._leave = leave
        self._cursor = Cursor(after)
        self._waiting: list[Record] = [] if begun is None else [*OPENING, *begun]
        self._texts = 0
        self._tokens = 0
        self._over: ChatServerError | None = None
        self._sleep: asyncio.Future[None] | None = None
        self._sleeps_since = 0.0
        self._page = FIRST_PAGE
        self._must_watch = not watched
        self._must_read = begun is None
        self._behind = False
        self._closed = False
        self._ahead: int | None = None
        self.queued = after <= 1
        """Whether the job waits for an engine, as far as the reader was told."""

    @property
    def after(self) -> int:
        """The last sequence number that was handed out."""
        return self._cursor.after

    @property
    def ended(self) -> bool:
        """Whether the tape's end was handed out."""
        return self._cursor.ended

    async def attach(self) -> list[Record]:
        """Begin to follow: return what is on the tape from the record that the reader has seen last.

        Nothing is handed out by it. Raises NotFound (no such tape, any more), Unavailable.
        """
        found = await self._attach(max(self.after, 0) - 1)
        if found.all:
            self._waiting = found.records + self._waiting  # what was announced meanwhile comes behind them
        else:
            self._must_read = True
        return found.records

    async def batch(self, timeout: float | None = None) -> list[Record]:
        """Return all that is new, adjacent deltas merged; [] after `timeout` seconds or once the tape ended.

        Raises Unavailable (the reader was too slow, or the store does not answer: come back and resume
        from `after`), NotFound (no such tape, any more).
        """
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        while not self.ended:
            records = self._take() or (await self._read() if self._must_read else [])
            if records:
                return join(records)
            if self._must_read or self.ended:
                continue  # a gap was found, or a whole page was read
            if not await self._wait(deadline):
                return []
        return []

    async def __aiter__(self) -> AsyncIterator[Record]:
        """Yield records up to the end of the tape."""
        while not self.ended:
            for record in await self.batch():
                yield record

    async def aclose(self) -> None:
        """Stop following. Idempotent."""
        self._closed = True
        self._clear()
        self._leave(self)

    async def __aenter__(self) -> Follower:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def offer(self, records: list[Record]) -> None:
        """Put announced records into the buffer. Never blocks.

        A reader that lags past the bound loses its buffer and reads the store when it is ready: merged, and
        without cost until then. Who takes nothing at all is sent away by the door.
        """
        if self._over or self._closed or self._behind:
            return
        lags = bool(self._waiting)
        for record in records:
            body = record.body
            if type(body) is Delta:
                self._texts += sum(map(len, body.pieces))
                self._tokens += len(body.pieces)
            else:
                self._tokens += 1
        if lags and (self._texts > MAX_TEXT or self._tokens > MAX_TOKENS):
            self._clear()
            self._behind = self._must_read = True
        else:
            self._waiting += records
        self._wake()

    def tell(self, ahead: int) -> None:
        """Say how many jobs are before this one, if the reader waits for an engine and does not know it yet."""
        if self.queued and not (self._closed or self._waiting) and ahead != self._ahead:
            self._ahead = ahead
            self._waiting.append(Record(self.after, Waiting(ahead)))
            self._wake()

    def dismiss(self, error: ChatServerError) -> None:
        """Empty the buffer and make the next `batch` raise `error`, which says whether to come back."""
        if self._over is None and not self._closed:
            self._over = error
            self._clear()
            self._wake()

    def resync(self) -> None:
        """Read the store again, and watch again: announcements may have been lost."""
        self._must_watch = self._must_read = True
        self._wake()

    def silent(self, now: float) -> bool:
        """Whether nothing was heard for IDLE seconds; `now` is the event loop's time."""
        return self._sleep is not None and now - self._sleeps_since >= IDLE

    def compare(self, last: int | None, now: float) -> None:
        """Resync if the tape is not where this reader is: `last` is the newest number on it, None if it is gone."""
        if last == self.after:
            self._sleeps_since = now
        else:
            self.resync()

    def _clear(self) -> None:
        self._waiting = []
        self._texts = self._tokens = 0

    def _wake(self) -> None:
        if self._sleep is not None and not self._sleep.done():
            self._sleep.set_result(None)

    async def _wait(self, deadline: float | None) -> bool:
        """Wait for news until the deadline; return whether to go on. Long silence is the hub's to notice."""
        # A bare future: a time-out for each wait would cost as much as all else that is done for a token.
        loop = asyncio.get_running_loop()
        self._sleep = loop.create_future()
        self._sleeps_since = loop.time()
        timer = None if deadline is None else loop.call_at(deadline, self._wake)
        try:
            await self._sleep
        finally:
            self._sleep = None
            if timer is not None:
                timer.cancel()
        return deadline is None or loop.time() < deadline

    def _take(self) -> list[Record]:
        """Return what is new in the buffer, and empty it. A gap makes the next step a read."""
        if self._over is not None:
            raise self._over
        if self._must_read:
            # The buffer stays: what was announced after the watch may be newer than the read.
            return []
        waiting = self._waiting
        self._clear()
        return self._advance(waiting)

    def _advance(self, records: list[Record]) -> list[Record]:
        fresh = []
        for record in records:
            if type(record.body) is Waiting:
                if self.queued:  # else an engine has come to it meanwhile
                    fresh.append(record)
                continue
            try:
                new = self._cursor.take(record)
            except Gap:
                self._must_read = True
                break
            if new is not None:
                fresh.append(new)
                if type(new.body) is not Delta:
                    self.queued = isinstance(new.body, _QUEUED)
                    self._ahead = None
            elif isinstance(record.body, Ended):
                self._cursor.ended = True  # the reader began at or behind the end
        return fresh

    async def _read(self) -> list[Record]:
        """Read one page of history after the cursor; the last page ends the need to read."""
        if self._must_watch:
            found = await self._attach(self.after)
            again = self._must_read
            fresh = self._advance(found.records)
            self._must_read = again or not found.all
            return fresh
        # From here on announcements are kept again: what came before is durable, so it is read.
        self._must_read = self._behind = False
        try:
            limit = self._page
            records = await patiently(lambda: self._tapes.read(self.response_id, self.after, limit=limit))
        except BaseException:
            self._must_read = True
            raise
        again = self._must_read  # something was lost meanwhile
        fresh = self._advance(records)
        # A gap inside a page would be a torn tape: reading it again cannot help, waiting for the writer can.
        self._must_read = again or (len(records) >= limit and bool(fresh))
        self._page = page_after(records, limit)
        return fresh

    async def _attach(self, after: int) -> Attached:
        """Watch, and read in the same step. As in `_read`, announcements are kept from here on."""
        self._must_watch = self._must_read = self._behind = False
        try:
            found = await patiently(
                lambda: self._tapes.attach(self.response_id, self._web_id, after, few=READ_TOKENS)
            )
        except BaseException:
            self._must_watch = self._must_read = True
            raise
        self._page = page_after(found.records, self._page)
        return found
