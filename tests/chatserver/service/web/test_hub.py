"""The hub: every follower gets every token once, in order, whatever the store and the network do."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatserver.domain.tape import Record, Waiting
from chatserver.errors import NotFound, Unavailable
from chatserver.service.web import follower, hub, patience, waiting
from chatserver.service.web.hub import Hub
from tests.chatserver.service.web.tapes import Tape, read, response, until
from tests.fakes import MemoryStore


@pytest.mark.parametrize("watched", [False, True])
async def test_history_then_live(memory, web, watched):
    tape = Tape(memory)
    await tape.begin("web_1" if watched else None)
    tape.write(5)
    reading = asyncio.create_task(read(web.follow(tape.response.id, watched=watched)))
    await asyncio.sleep(0.01)
    for _ in range(10):
        tape.write(2)
        await asyncio.sleep(0)
    tape.end()
    assert await reading == tape.text()


@given(st.integers(-1, 14), st.integers(0, 10))
@settings(deadline=None, max_examples=60)
def test_any_position_any_moment(after, written):
    """A follower that begins after any number, when any part is written, gets exactly the rest."""

    async def run() -> None:
        memory = MemoryStore()
        web = Hub(memory.tapes, memory.signals, "web_1")
        await web.start()
        tape = Tape(memory)
        await tape.begin()
        tape.write(written)
        reading = asyncio.create_task(read(web.follow(tape.response.id, after)))
        await asyncio.sleep(0)
        for _ in range(10 - written):
            tape.write(1)
            await asyncio.sleep(0)
        tape.end()
        assert await asyncio.wait_for(reading, 60) == tape.text(max(after, 1))
        await web.close()

    asyncio.run(run())


async def test_lost_announcements_only_cost_time(memory, web, monkeypatch):
    monkeypatch.setattr(follower, "IDLE", 0.05)
    tape = Tape(memory)
    await tape.begin()
    reader = web.follow(tape.response.id)
    reading = asyncio.create_task(read(reader))
    await until(lambda: reader._sleep)
    memory.lose = True
    tape.write(3)
    memory.lose = False
    tape.write(2)  # leaves a gap that must be filled from the store
    await until(lambda: reader.after == tape.last)
    memory.lose = True
    tape.write(1)
    tape.end()
    assert await asyncio.wait_for(reading, 60) == tape.text()


async def test_silence_is_asked_about_once_a_tape(memory, web, monkeypatch):
    """Whatever the number of readers; they read only if the tape has gone on, or has gone."""
    monkeypatch.setattr(follower, "IDLE", 0.02)
    monkeypatch.setattr(hub, "SWEEP", 0.02)
    tapes = [Tape(memory, n) for n in range(2)]
    for tape in tapes:
        await tape.begin()
    readers = [web.follow(tapes[n % 2].response.id) for n in range(40)]
    reading = [asyncio.create_task(read(reader)) for reader in readers]
    await until(lambda: all(reader._sleep for reader in readers))
    asked, read_ = [], []
    watch, attach = memory.tapes.watch, memory.tapes.attach

    async def watches(response_ids, web_id):
        asked.append(sorted(response_ids))
        return await watch(response_ids, web_id)

    async def attaches(response_id, *args, **options):
        read_.append(response_id)
        return await attach(response_id, *args, **options)

    monkeypatch.setattr(memory.tapes, "watch", watches)
    monkeypatch.setattr(memory.tapes, "attach", attaches)
    async with asyncio.timeout(60):
        while len(asked) < 3:
            await asyncio.sleep(0.01)
        assert asked[-1] == [tape.response.id for tape in tapes] and read_ == []
        memory.lose = True
        tapes[0].write(3)
        tapes[0].end()
        assert await asyncio.gather(*reading[::2]) == [tapes[0].text()] * 20
        assert read_ == [tapes[0].response.id] * 20
        del memory.all_tapes[tapes[1].response.id]
        assert {type(e) for e in await asyncio.gather(*reading[1::2], return_exceptions=True)} == {NotFound}


async def test_lost_subscription_is_made_again_and_everybody_reads(memory, web, monkeypatch):
    monkeypatch.setattr(patience, "BACK_OFF", (0.001, 0.01))
    monkeypatch.setattr(follower, "IDLE", 600.0)
    tapes = [Tape(memory, n) for n in range(3)]
    for tape in tapes:
        await tape.begin()
    readers = [web.follow(tape.response.id) for tape in tapes]
    reading = [asyncio.create_task(read(reader)) for reader in readers]
    await until(lambda: all(reader._sleep for reader in readers))
    memory.cut_subscriptions()
    memory.down = True
    await until(lambda: not memory.subscribers["web_1"])
    for tape in tapes:
        tape.write(4)  # announced to nobody
        tape.end()
    memory.watchers.clear()  # and the store has forgotten who watched
    memory.down = False
    texts = await asyncio.wait_for(asyncio.gather(*reading), 60)
    assert texts == [tape.text() for tape in tapes]


async def test_store_that_stays_away_ends_the_reader(memory, web, monkeypatch):
    monkeypatch.setattr(patience, "PATIENCE", 0.05)
    monkeypatch.setattr(patience, "BACK_OFF", (0.001, 0.01))
    tape = Tape(memory)
    await tape.begin()
    memory.down = True
    with pytest.raises(Unavailable, match="come back"):
        await web.follow(tape.response.id).batch()


async def test_waiting_readers_are_told_their_place(memory, web, monkeypatch):
    """Once for each place, only while the job waits, and not to those who know."""
    monkeypatch.setattr(waiting, "INTERVAL", 0.01)
    tape = Tape(memory)
    await tape.begin()
    reader = web.follow(tape.response.id)
    await reader.batch()
    memory.waiting = ["other", tape.response.id]
    telling = asyncio.create_task(waiting.QueuePlaces(memory.turns, web).run())
    (told,) = await reader.batch()
    assert told == Record(1, Waiting(1)) and await reader.batch(0.05) == []
    memory.waiting = [tape.response.id]
    (told,) = await reader.batch()
    assert told.body.ahead == 0
    late = web.follow(tape.response.id, 1)
    assert (await late.batch())[-1].body.ahead == 0
    memory.waiting = []
    tape.write(5)
    assert type((await reader.batch())[0].body) is not Waiting
    memory.waiting = [tape.response.id]
    assert await reader.batch(0.05) == []
    telling.cancel()


async def test_last_reader_unwatches_and_an_early_return_does_not(memory, web, monkeypatch):
    monkeypatch.setattr(hub, "LINGER", 0.02)
    tape = Tape(memory)
    await tape.begin()
    one, two = web.follow(tape.response.id), web.follow(tape.response.id)
    await one.batch()
    await two.batch()
    await one.aclose()
    await one.aclose()
    assert web.following == 1
    await two.aclose()
    back = web.follow(tape.response.id)
    await asyncio.sleep(0.05)
    assert memory.watchers[tape.response.id] == {"web_1"}
    await back.aclose()
    await until(lambda: memory.watchers[tape.response.id] == set())
    assert web.following == 0


async def test_watched_turn_that_nobody_reads_is_unwatched(memory, web, monkeypatch):
    monkeypatch.setattr(hub, "LINGER", 0.01)
    await asyncio.sleep(0.01)
    tape = Tape(memory)
    await tape.begin("web_1")
    tape.write(1)
    await until(lambda: memory.watchers[tape.response.id] == set())


async def test_an_expected_turn_is_followed_without_a_read(memory, web, monkeypatch):
    """Nothing of what was announced before `follow` is missing, and nothing of it doubled."""
    await until(lambda: "web_1" in memory.subscribers)
    tape = Tape(memory)
    web.expect(tape.response.id)
    await tape.begin("web_1")
    tape.write(3)
    await until(lambda: len(web._expected[tape.response.id]) == 3)
    with monkeypatch.context() as patch:
        patch.setattr(memory.tapes, "read", None)
        reader = web.follow(tape.response.id, watched=True)
        assert [record.last for record in await reader.batch()] == [0, 1, 4]
        tape.write(2)
        assert [record.last for record in await reader.batch()] == [6]
    tape.end()
    assert [record.last for record in await reader.batch()] == [7]
    await reader.aclose()
    assert not web._expected


@pytest.mark.parametrize("loss", ["connection", "bound"])
async def test_what_an_expected_turn_lost_is_read(memory, web, monkeypatch, loss):
    """An early record that nobody heard, and more of them than are kept, are in the memory."""
    monkeypatch.setattr(hub, "MAX_EARLY", 2)
    monkeypatch.setattr(patience, "BACK_OFF", (0.001, 0.01))
    await until(lambda: "web_1" in memory.subscribers)
    tape = Tape(memory)
    web.expect(tape.response.id)
    await tape.begin("web_1")
    if loss == "connection":
        memory.cut_subscriptions()
        tape.write(2)
    else:
        tape.write(1)
        tape.write(2)
    await until(lambda: web._expected[tape.response.id] is None)
    reader = web.follow(tape.response.id, watched=True)
    tape.end()
    assert await read(reader) == tape.text()


async def test_lingering_is_bounded(memory, web, monkeypatch):
    monkeypatch.setattr(hub, "MAX_LINGERING", 2)
    monkeypatch.setattr(hub, "LINGER", 600.0)
    for number in range(5):
        await web.follow(response(number).id).aclose()
    await until(lambda: len(web._lingering) == 2)


async def test_dismissed_readers_come_back_elsewhere_but_whole_answers_stay(memory, web):
    tape = Tape(memory)
    await tape.begin()
    going, staying = web.follow(tape.response.id), web.follow(tape.response.id, dismissible=False)
    await going.batch()
    await staying.batch()
    web.dismiss("restarting")
    with pytest.raises(Unavailable, match="restarting"):
        await going.batch()
    with pytest.raises(Unavailable, match="restarting"):
        web.check()
    tape.write(1)
    tape.end()
    assert await read(staying) == tape.text()


async def test_unknown_tape(web):
    with pytest.raises(NotFound):
        await web.follow(response().id).batch()
