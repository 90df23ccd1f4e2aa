"""Read a response that has ended from its stored form, when its tape has expired.

    0        1      2       3 4        5 … 4+n    5+n … 7+n  8+n            the middle once for each part
    Accepted Queued Started ItemOpened Delta(n)   ItemClosed Ended       n = output tokens, and those carried over

The numbers are those that the tape had (two more for every time an engine took over), so positions stay
valid. Which token wrote which letter is no longer known: the first token stands for the whole text. A
reader that resumes in mid-answer therefore gets no more deltas, but the closing events with the whole text.
"""

from __future__ import annotations

from collections.abc import Sequence

from chatserver.domain.ids import part_id
from chatserver.domain.item import ItemStatus, Part, PartKind
from chatserver.domain.logprob import Logprob
from chatserver.domain.response import Response
from chatserver.domain.tape import (
    SAME,
    Accepted,
    Body,
    Cursor,
    Delta,
    Ended,
    Interrupted,
    ItemClosed,
    ItemOpened,
    Prefilled,
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
        tokens = outcome.usage.output + (outcome.ledger.carried if outcome.ledger else 0)
        parts = item.parts or (Part(PartKind.TEXT, item.text, width=max(tokens, bool(item.text))),)
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            complete = not last or item.status is ItemStatus.COMPLETED
            bodies += _part(item.id, part, index, outcome.logprobs_of(index), complete=complete)
        if outcome.usage.output and response.params.progress:
            usage, ms = outcome.usage, outcome.timing.engine_ttft_ms
            before = next(at for at, body in enumerate(bodies) if isinstance(body, ItemOpened))
            # a plain answer's part begins with the prompt, others' when their kind is known
            bodies.insert(before if item.parts else before + 1, Prefilled(usage.prompt, usage.cached, ms))
    bodies.append(Ended(outcome))
    last = -1
    records = []
    for body in bodies:
        last += body.width
        records.append(Record(last, body))
    return records


def _part(
    item_id: str, part: Part, index: int, logprobs: tuple[Logprob, ...], *, complete: bool
) -> list[Body]:
    identifier = part_id(item_id, part.kind.value, index)
    place = (part.kind, index, part.call_id, part.name)
    bodies: list[Body] = [ItemOpened(identifier, *place)]
    if part.width:
        pieces = (part.text, *("",) * (part.width - 1))
        likely = (logprobs, *((),) * (part.width - 1)) if logprobs else ()
        bodies.append(Delta(pieces, (SAME,) * part.width, part.kind, index, likely))
    return [*bodies, ItemClosed(identifier, part.text, complete, *place, logprobs)]


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
