"""What is on the tape of an answer, or on its way there: the turn's own account of it, part by part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest

from chatserver.domain.ids import part_id
from chatserver.domain.item import Part, PartKind
from chatserver.domain.logprob import KEPT, Logprob
from chatserver.domain.stops import Pair
from chatserver.domain.tape import SAME, Body, Delta, ItemClosed, ItemOpened, Record, joined
from chatserver.ports.tapes import Tapes
from chatserver.service.engine.insistence import insist
from chatserver.service.engine.likelihood import TextLogprobs, within
from engine.answers import Piece, PieceKind, Splitter
from engine.token_contract import Decoder

CARRY_STEP = 512
"""Tokens of one record when an earlier answer's beginning is written to a tape."""


@dataclass(slots=True)
class _Open:
    """A part of the answer. `width`: numbers that its deltas took; `call`: which of the splitter's calls it is."""

    kind: PartKind
    call_id: str = ""
    name: str = ""
    call: int = -1
    pieces: list[str] = field(default_factory=list)
    width: int = 0
    closed: bool = False
    logprobs: list[Logprob] = field(default_factory=list)

    @property
    def part(self) -> Part:
        """What it is by now."""
        return Part(self.kind, "".join(self.pieces), self.call_id, self.name, self.width)


class Written:
    """One answer's tokens so far. `item_id`: of the answer.

    `last`: newest sequence number. `before`: tokens that were there before this claim's first one. `carried`: how
    many of the first tokens another response wrote, whose answer goes on here; they are input, not output.
    `reasoning`: tokens of the output that are reasoning, its marks included, as the splitter tells. `logprobs`: whether
    the text's log-probabilities are kept.
    """

    def __init__(self, item_id: str, *, logprobs: bool = False) -> None:
        self.last = 1
        self.ids: list[int] = []
        self.before = 0
        self.carried = 0
        self.reasoning = 0
        self._item_id = item_id
        self._splitter: Splitter | None = None
        self._parts: list[_Open] = []
        self._held: list[int] = []
        self._silent = 0
        self._thinks = False
        self._likely = TextLogprobs() if logprobs else None
        self._room = KEPT

    @property
    def opened(self) -> bool:
        """Whether there is anything of the answer."""
        return bool(self._parts or self.ids)

    @property
    def output(self) -> int:
        """Tokens that this response wrote."""
        return max(0, len(self.ids) - self.carried)

    @property
    def text(self) -> str:
        """The answer's text: neither its reasoning nor its calls."""
        return "".join(part.text for part in self.all_parts if part.kind is PartKind.TEXT)

    @property
    def all_parts(self) -> tuple[Part, ...]:
        """The answer's parts, in order."""
        return tuple(open_.part for open_ in self._parts)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The answer's parts, () if it is one text."""
        parts = self.all_parts
        return () if [part.kind for part in parts] == [PartKind.TEXT] else parts

    @property
    def logprobs(self) -> tuple[tuple[Logprob, ...], ...]:
        """Those of each part, () if none are kept."""
        return tuple(tuple(part.logprobs) for part in self._parts) if self._likely else ()

    @property
    def calls(self) -> bool:
        """Whether the answer calls tools."""
        return any(part.kind is PartKind.CALL for part in self._parts)

    async def read_back(self, tapes: Tapes, response_id: str) -> None:
        """Take in what earlier claims wrote, so that the answer goes on with the next token and number."""
        after = -1
        while records := await insist(partial(tapes.read, response_id, after), waits=response_id):
            for record in records:
                after = record.last
                self._take_back(record.body)
        self.last = max(after, self.last)
        self.before = len(self.ids)

    def begin(
        self, splitter: Splitter | None, decoder: Decoder, carried: Sequence[int]
    ) -> Iterator[list[Body]]:
        """Yield what is missing at the beginning: the first part, what an earlier answer wrote; each is counted.

        `splitter`: fresh; what is written already is fed to it. `carried`: ids that the answer begins with.
        """
        self._splitter, self.carried = splitter, len(carried)
        for place, token in enumerate(self.ids):
            self._count(self._pieces(decoder.push(token)), place)
        if splitter is None and not self._parts:
            yield [self._open(_Open(PartKind.TEXT))]
        pairs = [(token, decoder.push(token)) for token in carried[len(self.ids) :]]
        for at in range(0, len(pairs), CARRY_STEP):
            yield self.take(pairs[at : at + CARRY_STEP])
        self.before = max(self.before, len(carried))

    def take(self, pairs: Sequence[Pair], logprobs: Sequence[Logprob | None] = ()) -> list[Body]:
        """Return what the next pairs add to the tape; they are counted as written, or wait for their part to begin.

        `logprobs`: one a pair, or none at all.
        """
        if pairs and self._is_plain:
            return [self._more(pairs)]
        bodies: list[Body] = []
        for (token, text), logprob in zip_longest(pairs, logprobs):
            pieces = self._pieces(text)
            if self._likely:
                self._likely.feed(text, logprob)
            self._count(pieces, len(self.ids))
            self.ids.append(token)
            self._held.append(token)
            for piece in pieces:
                self._put(piece, bodies)
            self._settle(bodies)
        return _merged(bodies)

    def finish(self, *, complete: bool) -> list[Body]:
        """Return what ends the answer: what was held back, the end of its last part."""
        bodies: list[Body] = []
        for piece in self._splitter.flush() if self._splitter else ():
            self._put(piece, bodies)
        if not self._parts:
            bodies.append(self._open(_Open(PartKind.TEXT)))
        self._settle(bodies)
        bodies += self._close(complete=complete)
        return _merged(bodies)

    def number(self, body: Body) -> Record:
        """Return a body with the next sequence numbers."""
        self.last += body.width
        return Record(self.last, body)

    def _take_back(self, body: Body) -> None:
        if isinstance(body, ItemOpened):
            calls = sum(part.kind is PartKind.CALL for part in self._parts)
            call = calls if body.kind is PartKind.CALL else -1
            self._parts.append(_Open(body.kind, body.call_id, body.name, call))
        elif isinstance(body, Delta):
            self.ids.extend(body.tokens)
            self._parts[-1].pieces.extend(body.pieces)
            self._parts[-1].width += body.width
            for found in body.logprobs:
                self._keep(found)
        elif isinstance(body, ItemClosed):
            self._parts[-1].closed = True

    @property
    def _is_plain(self) -> bool:
        """Whether all that comes is more of one text, of which nothing else is told."""
        if self._splitter is not None or self._likely is not None or not self._parts:
            return False
        return self._parts[-1].kind is PartKind.TEXT and not self._parts[-1].closed

    def _more(self, pairs: Sequence[Pair]) -> Delta:
        """Write more of one text: as `_put` and `_settle` would, at a quarter of the time."""
        ids, pieces = zip(*pairs, strict=True)
        self.ids.extend(ids)
        self._parts[-1].pieces.extend(pieces)
        self._parts[-1].width += len(ids)
        return Delta(pieces, ids, PartKind.TEXT, len(self._parts) - 1)

    def _pieces(self, text: str) -> Sequence[Piece]:
        if self._splitter is not None:
            return self._splitter.push(text)
        return (Piece(PieceKind.TEXT, text),)

    def _count(self, pieces: Sequence[Piece], place: int) -> None:
        """Count a token that is reasoning. What gives no piece goes with what was before, or else comes after it."""
        self._silent += place >= self.carried
        if not pieces:
            return
        if pieces[0].kind is PieceKind.REASONING:
            self.reasoning += self._silent
        elif self._thinks:  # the mark that ends the reasoning
            self.reasoning += max(0, self._silent - 1)
        self._silent, self._thinks = 0, pieces[-1].kind is PieceKind.REASONING

    def _put(self, piece: Piece, bodies: list[Body]) -> None:
        """Write one piece behind all others, in a part of its own if it is of another kind."""
        part = self._parts[-1] if self._parts else None
        if part is None or part.closed or not _continues(part, piece):
            bodies += self._close(complete=True)
            bodies.append(self._open(self._new(piece)))
        *marks, token = self._held or (SAME,)
        self._held = []
        for mark in marks:
            self._write("", mark, bodies)
        self._write(piece.text, token, bodies, self._likely.take(piece) if self._likely else ())

    def _settle(self, bodies: list[Body]) -> None:
        """Write the tokens that are only marks, as soon as there is a part for them."""
        if self._parts and not self._parts[-1].closed:
            for token in self._held:
                self._write("", token, bodies)
            self._held.clear()

    def _write(self, text: str, token: int, bodies: list[Body], likely: tuple[Logprob, ...] = ()) -> None:
        part = self._parts[-1]
        part.pieces.append(text)
        part.width += 1
        self._keep(likely)
        told = (likely,) if self._likely and part.kind is PartKind.TEXT else ()
        bodies.append(Delta((text,), (token,), part.kind, len(self._parts) - 1, told))

    def _keep(self, likely: tuple[Logprob, ...]) -> None:
        """Have the whole forms say what a delta said, as far as there is room."""
        if self._room > 0:
            self._parts[-1].logprobs.extend(within(likely, self._room))
            self._room -= sum(logprob.count for logprob in likely)

    def _new(self, piece: Piece) -> _Open:
        kind = PartKind(piece.kind.value)
        if kind is not PartKind.CALL:
            return _Open(kind)
        index = len(self._parts)
        call_id = f"call_{self._item_id.partition('_')[2][:24]}_{index}"
        return _Open(kind, call_id, piece.name, piece.call)

    def _open(self, part: _Open) -> ItemOpened:
        index = len(self._parts)
        self._parts.append(part)
        return ItemOpened(self._part_id(index), part.kind, index, part.call_id, part.name)

    def _close(self, *, complete: bool) -> list[Body]:
        if not self._parts or self._parts[-1].closed:
            return []
        index, part = len(self._parts) - 1, self._parts[-1]
        part.closed = True
        known = part.part
        place = (part.kind, index, part.call_id, part.name)
        return [ItemClosed(self._part_id(index), known.text, complete, *place, tuple(part.logprobs))]

    def _part_id(self, index: int) -> str:
        return part_id(self._item_id, self._parts[index].kind.value, index)


def _continues(part: _Open, piece: Piece) -> bool:
    """Whether a piece is more of a part."""
    same = part.kind.value == piece.kind.value
    return same and (piece.kind is not PieceKind.CALL or (part.call == piece.call and not piece.name))


def _merged(bodies: list[Body]) -> list[Body]:
    """Return bodies with adjacent deltas of one part as one."""
    found: list[Body] = []
    run: list[Delta] = []
    for body in bodies:
        if isinstance(body, Delta) and (not run or run[-1].joins(body)):
            run.append(body)
            continue
        if run:
            found.append(joined(run))
        run = [body] if isinstance(body, Delta) else []
        if not run:
            found.append(body)
    return [*found, joined(run)] if run else found
