"""Group commits: what is urgent goes at once and takes along what is not."""

import asyncio
import contextlib

import pytest

from chatserver.domain.tape import Delta, Record, Started
from chatserver.ports.tapes import Appended
from chatserver.service.engine import tape_writer
from chatserver.service.engine.tape_writer import TapeWriter


class Tapes:
    """Keeps what was committed: of each commit, the numbers of each tape's records."""

    def __init__(self):
        self.commits = []

    async def commit(self, batch):
        self.commits.append({append.response_id: [r.last for r in append.records] for append in batch})
        return [Appended(ok=True, stop_asked=False)] * len(batch)


@contextlib.asynccontextmanager
async def writing(*names):
    """A running writer with open tapes, and what it commits."""
    tapes = Tapes()
    writer = TapeWriter(tapes)
    for name in names:
        writer.open(name, 1, on_stop=None, on_lost=None)
    task = asyncio.create_task(writer.run())
    try:
        yield writer, tapes.commits
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_is_not_urgent_goes_along_with_what_is(monkeypatch):
    """A start waits for the first token of its own or any other answer; nothing is written twice."""
    monkeypatch.setattr(tape_writer, "COMPANY", 60.0)
    async with writing("a", "b") as (writer, commits), asyncio.timeout(50):
        writer.write("a", Record(2, Started(9)), urgent=False)
        for _ in range(5):
            await asyncio.sleep(0)
        assert commits == []
        writer.write("b", Record(5, Delta(("x",), (1,))))
        await writer.flush("a")
        assert commits == [{"a": [2], "b": [5]}]


async def test_what_is_not_urgent_does_not_wait_for_ever():
    """Without company it goes alone, once."""
    async with writing("a") as (writer, commits), asyncio.timeout(50):
        writer.write("a", Record(2, Started(9)), urgent=False)
        while not commits:
            await asyncio.sleep(0.005)
        await asyncio.sleep(3 * tape_writer.COMPANY)
        assert commits == [{"a": [2]}]


@pytest.mark.parametrize("urgent", [True, False])
async def test_a_flush_hurries(monkeypatch, urgent):
    """The end of an answer waits for nobody's company."""
    monkeypatch.setattr(tape_writer, "COMPANY", 60.0)
    async with writing("a") as (writer, commits), asyncio.timeout(50):
        writer.write("a", Record(2, Started(9)), urgent=urgent)
        await writer.flush("a")
        assert commits == [{"a": [2]}]


async def test_a_tape_that_was_closed_or_opened_anew_leaves_nothing_behind():
    """What an older claim had waiting is not written under its name."""
    async with writing("a", "b") as (writer, commits), asyncio.timeout(50):
        writer.write("a", Record(2, Started(9)))
        writer.write("b", Record(2, Started(9)))
        writer.close("a")
        writer.open("b", 2, on_stop=None, on_lost=None)
        writer.write("b", Record(3, Started(9, 2)))
        await writer.flush("b")
        assert commits == [{"b": [3]}]
