"""The tape: the numbered record of one answer.

    seq    0        1        2          3,4        5 6 7 8      9 10       11,12,13     14
        ┌────────┬────────┬─────────┬───────────┬──────────┬──────────┬────────────┬───────┐
        │Accepted│ Queued │ Started │ItemOpened │ Delta(4) │ Delta(2) │ ItemClosed │ Ended │
        └────────┴────────┴─────────┴───────────┴──────────┴──────────┴────────────┴───────┘

An answer of several parts (reasoning, text, calls) has ItemOpened · Delta* · ItemClosed for each, one after the other.

Sequence numbers count tokens and structural events, not packets: a Delta of k tokens takes k numbers
and keeps its k pieces, so a reader that asks for "after N" gets exactly the rest wherever the
records were cut. A record is named by its `last` number. Position = (epoch, sequence number); the
epoch of a tape is its response id's, because a tape is never rewritten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import ClassVar

from chatserver.domain.item import PartKind
from chatserver.domain.logprob import Logprob
from chatserver.domain.response import Outcome

SAME = -1
"""Stands for an id where a piece is more of the token before it: a parser gave one token to two parts."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The job exists. Always sequence number 0."""

    width: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class Queued:
    """The job waits for an engine. Always sequence number 1."""

    width: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many jobs an engine will take before this one. Told to readers, never written: it takes no number."""

    ahead: int
    width: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class Started:
    """An engine admitted the prompt of `prompt` tokens. `claim` > 1: it goes on after a crash."""

    prompt: int
    claim: int = 1
    width: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class Prefilled:
    """The prompt of `prompt` tokens is computed, `cached` of them by earlier ones, after `ms` milliseconds.

    Written before the first token, and only if it was asked for: others' numbers stay as they are.
    """

    prompt: int
    cached: int
    ms: float
    width: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The engine that had the job is gone or gave it back; the job waits for the next one."""

    width: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class ItemOpened:
    """A part of the answer begins. Two events: the item, its content part; a call has no content part.

    `item_id`: as clients know the part. `index`: its place in the answer, from 0.
    """

    item_id: str
    kind: PartKind = PartKind.TEXT
    index: int = 0
    call_id: str = ""
    name: str = ""

    @property
    def width(self) -> int:
        """Sequence numbers taken."""
        return 1 if self.kind is PartKind.CALL else 2


@dataclass(frozen=True, slots=True)
class Delta:
    """k tokens: `pieces[i]` is the text that `ids[i]` completed (may be empty).

    `kind`, `index`: of the part that it is more of, so that whoever resumes behind it needs no earlier record.
    `logprobs[i]`: of the tokens that `pieces[i]` is made of, which may have come before `ids[i]`; () if not asked for.
    """

    pieces: tuple[str, ...]
    ids: tuple[int, ...]
    kind: PartKind = PartKind.TEXT
    index: int = 0
    logprobs: tuple[tuple[Logprob, ...], ...] = ()

    def __post_init__(self) -> None:
        if not self.pieces or len(self.pieces) != len(self.ids):
            raise ValueError(
                f"expected as many pieces as ids, ≥ 1; got {len(self.pieces)} and {len(self.ids)}"
            )
        if self.logprobs and len(self.logprobs) != len(self.pieces):
            raise ValueError(
                f"expected log-probabilities for {len(self.pieces)} pieces, got {len(self.logprobs)}"
            )

    @property
    def width(self) -> int:
        """Sequence numbers taken: one a token."""
        return len(self.pieces)

    @property
    def text(self) -> str:
        """The new text."""
        return "".join(self.pieces)

    @property
    def tokens(self) -> tuple[int, ...]:
        """The ids that the model emitted, each once."""
        return tuple(token for token in self.ids if token != SAME) if SAME in self.ids else self.ids

    def behind(self, seen: int) -> Delta:
        """Return it without its first `seen` pieces."""
        return replace(self, pieces=self.pieces[seen:], ids=self.ids[seen:], logprobs=self.logprobs[seen:])

    def part(self, seen: int, most: int) -> Delta:
        """Return up to `most` pieces behind the first `seen`."""
        to = seen + most
        return replace(
            self, pieces=self.pieces[seen:to], ids=self.ids[seen:to], logprobs=self.logprobs[seen:to]
        )

    def joins(self, later: Delta) -> bool:
        """Whether `later` is more of the same part."""
        alike = bool(self.logprobs) == bool(later.logprobs)
        return self.index == later.index and self.kind is later.kind and alike


@dataclass(frozen=True, slots=True)
class ItemClosed:
    """A part of the answer is whole. Three events: the text, its content part, the item; of a call the first and last.

    `text`: all of it. `complete`: False if the answer was stopped or cut off in it. `logprobs`: of its tokens, if they
    were asked for.
    """

    item_id: str
    text: str
    complete: bool
    kind: PartKind = PartKind.TEXT
    index: int = 0
    call_id: str = ""
    name: str = ""
    logprobs: tuple[Logprob, ...] = ()

    @property
    def width(self) -> int:
        """Sequence numbers taken."""
        return 2 if self.kind is PartKind.CALL else 3


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing follows."""

    outcome: Outcome
    width: ClassVar[int] = 1


Body = (
    Accepted | Queued | Waiting | Started | Prefilled | Interrupted | ItemOpened | Delta | ItemClosed | Ended
)


@dataclass(frozen=True, slots=True)
class Record:
    """A body at its place: it takes the numbers [first, last]."""

    last: int
    body: Body

    @property
    def first(self) -> int:
        """The first sequence number it takes."""
        return self.last - self.body.width + 1


OPENING = (Record(0, Accepted()), Record(1, Queued()))
"""How every tape begins. Whoever begins it knows that, so it is not announced."""


class Gap(Exception):
    """A record does not follow the one before it: read again from `after`."""

    def __init__(self, after: int, got: int) -> None:
        super().__init__(f"expected sequence number {after + 1}, got {got}")
        self.after = after


class Cursor:
    """A reader's place on one tape. Drops what it has seen, trims what it has half seen, refuses gaps."""

    __slots__ = ("after", "ended")

    def __init__(self, after: int = -1) -> None:
        self.after = after
        """The last sequence number that was handed out."""
        self.ended = False

    def take(self, record: Record) -> Record | None:
        """Return what is new of `record`, or None. Raises Gap. Modifies the cursor.

        Only deltas are trimmed. A structural record that is half seen comes whole: its reader
        skips the events ≤ the position it asked for.
        """
        body = record.body
        if record.last <= self.after:
            return None
        seen = self.after - record.last + body.width
        if seen < 0:
            raise Gap(self.after, record.first)
        self.after = record.last
        if type(body) is not Delta:
            self.ended = self.ended or type(body) is Ended
        elif seen:
            return Record(record.last, body.behind(seen))
        return record


def merge(earlier: Record, later: Record) -> Record | None:
    """Return two adjacent deltas as one, or None if they are not."""
    a, b = earlier.body, later.body
    if not isinstance(a, Delta) or not isinstance(b, Delta) or later.first != earlier.last + 1:
        return None
    return Record(later.last, joined((a, b))) if a.joins(b) else None


def joined(deltas: Sequence[Delta]) -> Delta:
    """Return deltas of one part as one."""
    if len(deltas) == 1:
        return deltas[0]
    pieces = tuple(chain.from_iterable([delta.pieces for delta in deltas]))
    ids = tuple(chain.from_iterable([delta.ids for delta in deltas]))
    logprobs = tuple(chain.from_iterable([delta.logprobs for delta in deltas]))
    return Delta(pieces, ids, deltas[0].kind, deltas[0].index, logprobs)
