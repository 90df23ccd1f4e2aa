"""One reader's place: what waits for it is bounded, and what is dropped for that is read from the memory."""

from __future__ import annotations

import asyncio

from chatserver.domain.tape import Delta, Ended, Record
from chatserver.service.web import follower
from tests.chatserver.service.web.tapes import Tape, read, until


async def test_lagging_reader_gets_merged_deltas_without_loss(memory, web):
    tape = Tape(memory)
    await tape.begin()
    reader = web.follow(tape.response.id)
    await reader.batch()
    tape.write(500)
    await until(lambda: reader._behind)
    (merged,) = await reader.batch()
    assert len(merged.body.pieces) == 500 and merged.last == tape.last
    tape.end()
    assert await read(reader) == ""


async def test_reader_past_its_bound_costs_nothing_and_reads_on_from_the_store(memory, web, monkeypatch):
    monkeypatch.setattr(follower, "MAX_TEXT", 100)
    tape = Tape(memory)
    await tape.begin()
    slow, quick = web.follow(tape.response.id), web.follow(tape.response.id)
    reading = asyncio.create_task(read(quick))
    await slow.batch()
    for _ in range(10):
        tape.write(5)
        await asyncio.sleep(0)
    await until(lambda: slow._behind)
    assert not slow._waiting
    tape.end()
    assert await reading == tape.text()
    merged, end = await slow.batch()
    assert merged.body.text == tape.text() and isinstance(end.body, Ended)


async def test_empty_tokens_are_bounded_too(memory, web, monkeypatch):
    monkeypatch.setattr(follower, "MAX_TOKENS", 10)
    tape = Tape(memory)
    await tape.begin()
    reader = web.follow(tape.response.id)
    await reader.batch()
    for last in (12, 23):
        memory.add(tape.response.id, [Record(last, Delta(("",) * 11, (0,) * 11))])
    await until(lambda: reader._behind)
    assert not reader._waiting
    (merged,) = await reader.batch()
    assert (merged.last, len(merged.body.ids)) == (23, 22)


async def test_what_comes_while_a_lagging_reader_reads_is_not_lost(memory, web, monkeypatch):
    """The bound is passed again in the middle of the read that makes up for the first time."""
    monkeypatch.setattr(follower, "MAX_TOKENS", 10)
    monkeypatch.setattr(follower, "IDLE", 600.0)
    tape = Tape(memory)
    await tape.begin()
    reader = web.follow(tape.response.id)
    await reader.batch()
    real = memory.tapes.read

    async def read_slowly(*args, **options):
        found = await real(*args, **options)
        for _ in range(4):
            tape.write(8)
            await asyncio.sleep(0.005)
        return found

    for _ in range(4):
        tape.write(8)
        await asyncio.sleep(0.005)
    monkeypatch.setattr(memory.tapes, "read", read_slowly)
    text = "".join(r.body.text for r in await reader.batch())
    monkeypatch.setattr(memory.tapes, "read", real)
    tape.end()
    async with asyncio.timeout(60):
        assert text + await read(reader) == tape.text()


async def test_batch_times_out_and_can_be_cancelled_without_loss(memory, web):
    tape = Tape(memory)
    await tape.begin()
    reader = web.follow(tape.response.id)
    assert [r.last for r in await reader.batch(0.01)] == [0, 1]
    assert await reader.batch(0.01) == []
    text = ""
    for steps in range(8):
        waiting = asyncio.create_task(reader.batch())
        tape.write(1)
        for _ in range(steps):
            await asyncio.sleep(0)
        if not waiting.done():
            waiting.cancel()
            await asyncio.sleep(0)
            assert waiting.cancelled()
        else:
            text += "".join(record.body.text for record in waiting.result())
    tape.end()
    assert text + await read(reader) == tape.text()
