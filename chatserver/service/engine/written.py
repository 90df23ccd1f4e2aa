"""What is on the tape of an answer, or on its way there: the turn's own account of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from chatserver.domain.stops import Pair
from chatserver.domain.tape import Body, Delta, ItemOpened, Record
from chatserver.ports.tapes import Tapes
from engine.contract import Decoder

CARRY_STEP = 512
"""Tokens of one record when an earlier answer's beginning is written to a tape."""


@dataclass(slots=True)
class Written:
    """One answer's tokens so far.

    `last`: newest sequence number. `before`: tokens that were there before this claim's first one. `carried`: how
    many of the first tokens another response wrote, whose answer goes on here; they are input, not output.
    """

    last: int = 1
    opened: bool = False
    ids: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    before: int = 0
    carried: int = 0

    @property
    def output(self) -> int:
        """Tokens that this response wrote."""
        return max(0, len(self.ids) - self.carried)

    @property
    def text(self) -> str:
        """The answer's text."""
        return "".join(self.pieces)

    async def read_back(self, tapes: Tapes, response_id: str) -> None:
        """Take in what earlier claims wrote, so that the answer goes on with the next token and number."""
        after = -1
        while records := await tapes.read(response_id, after):
            for record in records:
                after = record.last
                self.opened = self.opened or isinstance(record.body, ItemOpened)
                if isinstance(record.body, Delta):
                    self.ids.extend(record.body.ids)
                    self.pieces.extend(record.body.pieces)
        self.last = max(after, self.last)
        self.before = len(self.ids)

    def carry(self, ids: Sequence[int], decoder: Decoder) -> Iterator[Delta]:
        """Yield what of an earlier answer's ids is not on the tape yet; each is counted as written."""
        self.carried = len(ids)
        pieces = [decoder.push(token) for token in ids]
        while (at := len(self.ids)) < len(ids):
            end = at + CARRY_STEP
            yield self.delta(list(zip(ids[at:end], pieces[at:end], strict=True)))
        self.before = max(self.before, len(ids))

    def delta(self, pairs: Sequence[Pair]) -> Delta:
        """Return the next pairs, at least one, as a record's body; they are counted as written."""
        ids, pieces = zip(*pairs, strict=True)
        self.ids.extend(ids)
        self.pieces.extend(pieces)
        return Delta(pieces, ids)

    def number(self, body: Body) -> Record:
        """Return a body with the next sequence numbers."""
        self.last += body.width
        return Record(self.last, body)
