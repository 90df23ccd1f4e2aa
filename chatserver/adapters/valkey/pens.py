"""What a writer knows of its tapes, so that a commit looks at them only when something has changed.

    first commit to a shard     looks at each tape: claim, end, stop, watchers, last number     leaves the pen at 1
    the next one                is my pen at 1? yes: appends                                    … at 2
    a stop, a new watcher, an end, a job put back: any response of the shard                    no pens
    the next one                is my pen at 2? no: looks at each tape                          … at -3

The pens lie in the store beside what they vouch for, so whatever loses a commit there (a fail-over, a power cut) loses
where it left the pen, too. See `lua/append.lua` and decision 35.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from secrets import token_hex

from chatserver.adapters.valkey import keys
from chatserver.adapters.valkey.connect import Reply
from chatserver.adapters.valkey.scripts import Argument, Command, script
from chatserver.ports.tapes import Append, Appended

Encoded = list[tuple[int, bytes]]
"""(last, body) of each record of an append."""

STROKE = 64
"""Tapes that one call of the append script writes: well under a millisecond of the server's time."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the store said of one tape. `channels`: of the web processes that watch."""

    appended: Appended
    channels: tuple[str, ...]


@dataclass(slots=True)
class _Tape:
    """A tape that is known, under one claim. `due`: the sequence number that comes next."""

    claim: int
    seen: Seen
    due: int


@dataclass(slots=True)
class _Pen:
    """This writer's pen in one shard: where it was left, and the tapes that it vouches for, by response."""

    at: str = ""
    known: dict[str, _Tape] = field(default_factory=dict)


Part = tuple[int, str, int, Seen | None]
"""An append: its place in the batch, its tape's key, its first number, and what is known of the tape."""


@dataclass(frozen=True, slots=True)
class Stroke:
    """One call of the script: appends of one shard, those to tapes that are known first."""

    shard: int
    pen: _Pen
    parts: Sequence[Part]
    begins: str
    ends: str

    def command(self, name: str, batch: Sequence[Append], encoded: Sequence[Encoded]) -> tuple[int, Command]:
        """Return the shard and the call. `name`: the writer's."""
        names = [keys.pens(self.shard)]
        known = 0
        arguments: list[Argument] = [name, self.begins, self.ends, 0]
        for place, tape, first, seen in self.parts:
            known += seen is not None
            names.append(tape)
            entries = encoded[place]
            arguments += (batch[place].claim, first, len(entries))
            for last, body in entries:
                arguments += (last + 1, body)  # an entry's id
        arguments[3] = known
        return self.shard, script("append").command(names, *arguments)


class Pens:
    """The pens of one writer. Of a shard to which a commit is under way, or has failed, it knows nothing."""

    def __init__(self) -> None:
        self.name = token_hex(6)
        """Its field among a shard's pens."""
        self._pens: dict[int, _Pen] = {}
        self._numbers = count(1)

    def take(self, batch: Sequence[Append]) -> list[Stroke]:
        """Return a batch as strokes: `put` each back with its reply, in their order."""
        shards: dict[int, tuple[_Pen, list[Part], list[Part]]] = {}
        for place, append in enumerate(batch):
            names = keys.response(append.response_id)
            parts = shards.get(names.shard)
            if parts is None:
                parts = shards[names.shard] = self._pens.pop(names.shard, None) or _Pen(), [], []
            tape, records = parts[0].known.get(append.response_id), append.records
            first = records[0].first if records else 0
            if tape is not None and first == tape.due and tape.claim == append.claim:
                tape.due = records[-1].last + 1
                parts[1].append((place, names.tape, first, tape.seen))
            else:
                parts[2].append((place, names.tape, first, None))
        return [stroke for shard, parts in shards.items() for stroke in self._strokes(shard, *parts)]

    def put(self, stroke: Stroke, reply: Reply, batch: Sequence[Append]) -> dict[int, Seen]:
        """Return what is known now of the tape of each append of a stroke, by its place in the batch."""
        sure, *looked = reply
        pen, parts = stroke.pen, stroke.parts
        pen.at = stroke.ends if sure else f"-{stroke.ends}"
        self._pens[stroke.shard] = pen
        seen = {place: known for place, _, _, known in parts if sure and known is not None}
        if not sure:
            pen.known.clear()
        for at, ok, stop_asked, watchers in zip(*[iter(looked)] * 4, strict=True):
            append = batch[parts[at][0]]
            channels = [keys.WEB_CHANNELS + web.decode() for web in watchers.split()] if ok else ()
            found = Seen(Appended(ok=bool(ok), stop_asked=bool(stop_asked)), tuple(channels))
            seen[parts[at][0]] = found
            if ok and append.records:
                pen.known[append.response_id] = _Tape(append.claim, found, append.records[-1].last + 1)
            else:
                pen.known.pop(append.response_id, None)
        return seen

    def _strokes(self, shard: int, pen: _Pen, known: list[Part], new: list[Part]) -> Iterator[Stroke]:
        at, parts = pen.at, known + new
        for start in range(0, len(parts), STROKE):
            ends = str(next(self._numbers))
            yield Stroke(shard, pen, parts[start : start + STROKE], at, ends)
            at = ends
