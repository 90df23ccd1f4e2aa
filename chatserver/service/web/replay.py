"""Read a response that has ended from its stored form, when its tape has expired.

    0        1      2       3 4        5 … 4+n    5+n … 7+n  8+n
    Accepted Queued Started ItemOpened Delta(n)   ItemClosed Ended       n = output tokens, and those carried over

The numbers are those that the tape had (two more for every time an engine took over), so positions stay
valid. Which token wrote which letter is no longer known: the first token stands for the whole text. A
reader that resumes in mid-answer therefore gets no more deltas, but the closing events with the whole text.
"""

from __future__ import annotations

from collections.abc import Sequence

from chatserver.domain.item import ItemStatus
from chatserver.domain.response import Response
from chatserver.domain.tape import (
    Accepted,
    Body,
    Cursor,
    Delta,
    Ended,
    Interrupted,
    ItemClosed,
    ItemOpened,
    Queued,
    Record,
    Started,
)
from chatserver.errors import ChatServerError


def replay(response: Response) -> list[Record]:
    """Return the records of a response that has ended. `response.outcome` must be set."""
    outcome = response.outcome
    assert outcome is not None, response.id
    bodies: list[Body] = [Accepted(), Queued()]
    if outcome.item is not None:
        item = outcome.item
        bodies.append(Started(outcome.usage.prompt))
        for claim in range(2, response.claim + 1):
            bodies += [Interrupted(), Started(outcome.usage.prompt, claim)]
        bodies.append(ItemOpened(item.id))
        tokens = outcome.usage.output + (outcome.ledger.carried if outcome.ledger else 0)
        if item.text or tokens:
            silent = max(0, tokens - 1)
            bodies.append(Delta((item.text, *("",) * silent), (-1,) * (1 + silent)))
        bodies.append(ItemClosed(item.id, item.text, item.status is ItemStatus.COMPLETED))
    bodies.append(Ended(outcome))
    last = -1
    records = []
    for body in bodies:
        last += body.width
        records.append(Record(last, body))
    return records


class Replayed:
    """A reader of records that are all there, to be used like a Follower."""

    def __init__(self, response_id: str, records: Sequence[Record], after: int) -> None:
        self.response_id = response_id
        self._cursor = Cursor(after)
        self._records = [r for record in records if (r := self._cursor.take(record)) is not None]
        self._cursor.ended = not self._records

    @property
    def after(self) -> int:
        """The last sequence number that was handed out."""
        return self._cursor.after

    @property
    def ended(self) -> bool:
        """Whether the end was handed out."""
        return self._cursor.ended

    async def batch(self, timeout: float | None = None) -> list[Record]:
        """Return all records at once, then []."""
        del timeout  # nothing is waited for
        records, self._records = self._records, []
        self._cursor.ended = True
        return records

    def dismiss(self, error: ChatServerError) -> None:
        """Do nothing: all of it is handed out at once."""

    async def aclose(self) -> None:
        """Do nothing."""
