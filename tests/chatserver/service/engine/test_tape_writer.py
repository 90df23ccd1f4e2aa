"""The engine's buffer for a store that is away: bounded, sent again until it is there, each token once and in order."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from chatserver.domain.tape import Cursor, Delta, Record
from chatserver.errors import Unavailable
from chatserver.ports.tapes import Append, Appended
from chatserver.service.engine import insistence
from chatserver.service.engine.tape_writer import PENDING_BOUND, TapeWriter

STEP = 16
"""Tokens of one record."""


class Store:
    """Keeps what is committed, as a store does: what is there already is skipped. `here`: it answers."""

    def __init__(self) -> None:
        self.here = asyncio.Event()
        self.tokens: dict[str, int] = {}
        self.commits = 0
        self.verdict = Appended(ok=True, stop_asked=False)
        self.forgets = False
        """Whether the answer to the next commit is lost."""

    async def commit(self, batch: list[Append]) -> list[Appended]:
        if not self.here.is_set():
            raise Unavailable("the store is away")
        self.commits += 1
        for append in batch:
            cursor = Cursor(self.tokens.get(append.response_id, -1))
            for record in append.records:
                cursor.take(record)  # raises Gap
            self.tokens[append.response_id] = cursor.after
        if self.forgets:
            self.forgets = False
            raise Unavailable("the answer was lost")
        return [self.verdict] * len(batch)


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(insistence, "DELAYS", (0.01,))


@asynccontextmanager
async def running(store: Store, **options):
    writer = TapeWriter(store, **options)  # type: ignore[arg-type]
    task = asyncio.create_task(writer.run())
    yield writer, task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def opened(writer: TapeWriter, name: str, told: list[str]) -> None:
    writer.open(name, 1, on_stop=lambda: told.append("stop"), on_lost=lambda: told.append("lost"))


async def write(writer: TapeWriter, name: str, tokens: int, written: dict[str, int]) -> None:
    """Write as a turn does: a step, then wait if there is too much."""
    for last in range(STEP - 1, tokens, STEP):
        writer.write(name, Record(last, Delta(("x",) * STEP, (1,) * STEP)))
        written[name] = last
        await writer.flow(name)
        await asyncio.sleep(0)


async def test_what_waits_for_a_store_that_is_away_is_bounded_and_not_lost():
    """Turns stand still at the bound; what was acknowledged late or twice is there once when the store is back."""
    store, written, told = Store(), {}, []
    names, tokens = ("a", "b", "c"), 4 * PENDING_BOUND
    async with running(store) as (writer, _):
        for name in names:
            opened(writer, name, told)
        writing = [asyncio.create_task(write(writer, name, tokens, written)) for name in names]
        async with asyncio.timeout(60):
            while min(written.get(name, 0) for name in names) <= PENDING_BOUND:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        assert all(PENDING_BOUND < written[name] <= 2 * (PENDING_BOUND + STEP) for name in names), written
        assert not any(task.done() for task in writing) and store.commits == 0
        store.forgets = True
        store.here.set()
        async with asyncio.timeout(60):
            await asyncio.gather(*writing)
            for name in names:
                await writer.flush(name)
    assert store.tokens == dict.fromkeys(names, tokens - 1) and told == []


async def test_while_a_commit_is_away_the_next_one_grows():
    """Adjacent deltas of one tape become one record, all tapes one commit."""
    store, told = Store(), []
    async with running(store) as (writer, _):
        for name in ("a", "b"):
            opened(writer, name, told)
        await asyncio.gather(*(write(writer, name, 50 * STEP, {}) for name in ("a", "b")))
        store.here.set()
        async with asyncio.timeout(60):
            await asyncio.gather(writer.flush("a"), writer.flush("b"))
    assert store.commits <= 2 and store.tokens == {"a": 50 * STEP - 1, "b": 50 * STEP - 1}


async def test_a_store_that_stays_away_ends_the_engine():
    """Its jobs go to another one, or to it when it is started again: only what was durable was shown to anybody."""
    store = Store()
    async with running(store, give_up=0.1) as (writer, task):
        opened(writer, "a", [])
        writer.write("a", Record(0, Delta(("x",), (1,))))
        with pytest.raises(Unavailable):
            await asyncio.wait_for(task, 60)


@pytest.mark.parametrize(("ok", "stop", "word"), [(False, False, "lost"), (True, True, "stop")])
async def test_what_the_store_says_of_a_tape_reaches_its_turn(ok, stop, word):
    store, told = Store(), []
    store.here.set()
    store.verdict = Appended(ok=ok, stop_asked=stop)
    async with running(store) as (writer, _):
        opened(writer, "a", told)
        writer.write("a", Record(0, Delta(("x",), (1,))))
        await asyncio.wait_for(writer.flush("a"), 60)
    assert told == [word]


async def test_a_tape_that_is_closed_holds_nobody_up():
    store = Store()
    async with running(store) as (writer, _):
        opened(writer, "a", [])
        waiting = asyncio.create_task(write(writer, "a", 4 * PENDING_BOUND, {}))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        flushed = asyncio.create_task(writer.flush("a"))
        await asyncio.sleep(0)
        writer.close("a")
        await asyncio.wait_for(flushed, 60)
        waiting.cancel()
