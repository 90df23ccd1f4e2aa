"""Tapes, cursors and slow readers against plain lists: whatever is lost, doubled, merged or cut on the way.

The model of a tape is the list of its (number, text) pairs; the model of a reader is where it began. At every
moment a reader has exactly that slice of the list, and in the end all of it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chatserver.domain.response import Finish, Outcome, Status, Usage
from chatserver.domain.tape import (
    Accepted,
    Delta,
    Ended,
    Interrupted,
    ItemOpened,
    Queued,
    Record,
    Started,
    Waiting,
    merge,
)
from chatserver.service.web import follower as follower_module
from chatserver.service.web import pages
from chatserver.service.web.follower import Follower
from chatserver.service.web.hub import Hub
from tests.fakes import MemoryStore

END = Outcome(Status.COMPLETED, Finish.STOP, Usage())
BUNDLE = 30
"""Tokens in the largest bundle that is written here."""
TAPES = ("resp_a", "resp_b")
"""Two epochs: an answer and its regeneration. The numbers are the same, the texts are not."""


@dataclass
class Tape:
    """What was written, as records and as the model."""

    name: str
    records: list[Record] = field(default_factory=list)
    model: list[tuple[int, str]] = field(default_factory=list)
    last: int = -1
    ended: bool = False

    def add(self, body) -> Record:
        self.last += body.width
        record = Record(self.last, body)
        self.records.append(record)
        self.model += parts_of(record)
        return record


@dataclass
class Reader:
    """One reader: where it began, and what it got."""

    tape: Tape
    began: int
    follower: Follower
    got: list[tuple[int, str]] = field(default_factory=list)


def parts_of(record: Record) -> list[tuple[int, str]]:
    """A record as the model sees it: a number and a text for each token, a name for each structure."""
    body = record.body
    if isinstance(body, Waiting):
        return []
    if isinstance(body, Delta):
        return list(zip(range(record.first, record.last + 1), body.pieces, strict=True))
    return [(record.last, type(body).__name__)]


class Reading(RuleBasedStateMachine):
    """One hub, two tapes, any number of readers."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.store = MemoryStore()
        self.hub = Hub(self.store.tapes, self.store.signals, "web_1")
        self.tapes = {name: Tape(name) for name in TAPES}
        self.readers: list[Reader] = []
        self.tokens = 0

    @initialize()
    def begin(self) -> None:
        for name, tape in self.tapes.items():
            self.store.all_tapes[name] = tape.records
            for body in (Accepted(), Queued()):
                tape.add(body)

    def teardown(self) -> None:
        """Nothing was lost for good: with everything written and the store at hand, each reader has the rest."""
        for tape in self.tapes.values():
            if not tape.ended:
                tape.add(Ended(END))
        for reader in self.readers:
            reader.follower.resync()
            self.loop.run_until_complete(self._read_all(reader))
            assert reader.got == [part for part in reader.tape.model if part[0] > reader.began]
        self.loop.close()

    # What an engine does

    @precondition(lambda self: any(not tape.ended for tape in self.tapes.values()))
    @rule(data=st.data(), announced=st.sampled_from(("once", "twice", "merged", "apart", "lost")))
    def write(self, data, announced: str) -> None:
        """Write a few records; tell of them as they are, doubled, cut otherwise, or not at all."""
        tape = self.tapes[data.draw(st.sampled_from([n for n, t in self.tapes.items() if not t.ended]))]
        sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
        fresh = [tape.add(self._tokens(tape, size)) for size in sizes]
        if announced != "lost":
            self._announce(tape, fresh, announced)

    @rule(
        name=st.sampled_from(TAPES), body=st.sampled_from((Started(3, 2), ItemOpened("msg"), Interrupted()))
    )
    def write_structure(self, name: str, body) -> None:
        """An engine came, or went."""
        if not self.tapes[name].ended:
            self._announce(self.tapes[name], [self.tapes[name].add(body)], "once")

    @rule(name=st.sampled_from(TAPES))
    def end(self, name: str) -> None:
        """The answer is whole."""
        tape = self.tapes[name]
        if not tape.ended:
            tape.ended = True
            self._announce(tape, [tape.add(Ended(END))], "once")

    @rule(name=st.sampled_from(TAPES), data=st.data())
    def announce_late(self, name: str, data) -> None:
        """Some stretch of a tape is told of again, long after."""
        records = self.tapes[name].records
        start = data.draw(st.integers(0, len(records) - 1))
        self._announce(self.tapes[name], records[start : start + data.draw(st.integers(1, 4))], "once")

    @rule(name=st.sampled_from(TAPES), ahead=st.integers(0, 3))
    def tell(self, name: str, ahead: int) -> None:
        """Somebody looked at the queues."""
        self.hub.tell(name, ahead)

    # What readers do

    @precondition(lambda self: len(self.readers) < 6)
    @rule(name=st.sampled_from(TAPES), data=st.data())
    def attach(self, name: str, data) -> None:
        """Come (back) at any position that was ever seen."""
        tape = self.tapes[name]
        # whoever has seen the end is answered without a follower (`Chat.read`)
        began = data.draw(st.integers(-1, tape.last - tape.ended))
        self.readers.append(Reader(tape, began, self.hub.follow(name, began)))

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def read(self, data) -> None:
        """Take what there is."""
        self.loop.run_until_complete(self._read(data.draw(st.sampled_from(self.readers))))

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def drop_and_come_back(self, data) -> None:
        """The connection is cut; the reader returns with its position."""
        reader = data.draw(st.sampled_from(self.readers))
        if reader.follower.ended:
            return
        after = reader.follower.after
        self.loop.run_until_complete(reader.follower.aclose())
        reader.follower = self.hub.follow(reader.tape.name, after)

    @precondition(lambda self: self.readers)
    @rule()
    def lose_the_subscription(self) -> None:
        """Everything is read again."""
        for name in TAPES:
            self.hub._resync(name)

    @invariant()
    def each_reader_has_its_slice(self) -> None:
        for reader in self.readers:
            expected = [part for part in reader.tape.model if part[0] > reader.began]
            assert reader.got == expected[: len(reader.got)]

    @invariant()
    def nobody_keeps_more_than_the_bound_and_one_bundle(self) -> None:
        for reader in self.readers:
            waiting = reader.follower._waiting
            assert sum(record.body.width for record in waiting) <= follower_module.MAX_TOKENS + BUNDLE

    async def _read(self, reader: Reader) -> None:
        for record in await reader.follower.batch(0.0):
            # a structure that is half seen comes whole: its reader skips what it has
            reader.got += [part for part in parts_of(record) if part[0] > reader.began]

    async def _read_all(self, reader: Reader) -> None:
        async with asyncio.timeout(60):
            while not reader.follower.ended:
                await self._read(reader)
        await reader.follower.aclose()

    def _tokens(self, tape: Tape, count: int) -> Delta:
        self.tokens += count
        texts = tuple(
            f"{tape.name[-1]}{n} " if n % 3 else "" for n in range(self.tokens - count, self.tokens)
        )
        return Delta(texts, tuple(range(count)))

    def _announce(self, tape: Tape, records: list[Record], how: str) -> None:
        if how == "merged":
            records = [merged_of(records)]
        elif how == "apart":
            records = [one for record in records for one in apart(record)]
        # the hub's own bounds are under test, not its subscription: bundles are handed to it
        for _ in range(2 if how == "twice" else 1):
            self.hub._hand_out([(tape.name, records)])


def merged_of(records: list[Record]) -> Record:
    """All of them as one."""
    whole = records[0]
    for record in records[1:]:
        joined = merge(whole, record)
        assert joined is not None
        whole = joined
    return whole


def apart(record: Record) -> list[Record]:
    """A delta as one record a token."""
    assert isinstance(record.body, Delta)
    pairs = zip(record.body.pieces, record.body.ids, strict=True)
    return [Record(record.first + i, Delta((piece,), (token,))) for i, (piece, token) in enumerate(pairs)]


class TestReading(Reading.TestCase):
    """Hypothesis drives it with small bounds, so that readers lag all the time."""

    settings = settings(max_examples=100, stateful_step_count=30, deadline=None)

    def setUp(self) -> None:
        self._bounds = follower_module.MAX_TOKENS, pages.PAGE
        follower_module.MAX_TOKENS, pages.PAGE = 8, 3

    def tearDown(self) -> None:
        follower_module.MAX_TOKENS, pages.PAGE = self._bounds
