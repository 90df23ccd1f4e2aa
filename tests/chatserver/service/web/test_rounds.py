"""Looks that are made again and again, whatever one of them comes to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress

import pytest

from chatserver.service.web import hub, lookout, rounds, settling, vigil, waiting
from chatserver.service.web.hub import Hub
from chatserver.service.web.lookout import Lookout
from chatserver.service.web.settling import Settling
from chatserver.service.web.vigil import Vigil
from chatserver.service.web.waiting import QueuePlaces
from tests.fakes import MemoryStore


class Mistaken:
    """Raises what nobody foresaw, whatever is asked; `asked`: how often."""

    def __init__(self) -> None:
        self.asked = 0

    def __getattr__(self, name: str) -> Callable[..., object]:
        async def ask(*_: object, **__: object) -> None:
            self.asked += 1
            raise KeyError(name)

        return ask

    def queued(self, _: int) -> list[str]:
        return ["resp"]


@asynccontextmanager
async def running(work):
    task = asyncio.create_task(work)
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("which", ["lookout", "vigil", "queue places", "settling", "hub"])
async def test_a_mistake_in_one_look_does_not_end_them_all(which, monkeypatch, caplog):
    """Nobody waits for these tasks: one that ended would leave its process half blind, and say nothing."""
    for module in (lookout, vigil, waiting, settling):
        monkeypatch.setattr(module, "INTERVAL", 0.001)
    monkeypatch.setattr(hub, "SWEEP", 0.001)
    monkeypatch.setattr(hub, "WATCH_ON", 0.0)
    broken = Mistaken()
    keys = Vigil(broken.valid)
    keys.join("key", lambda _: None)
    store = MemoryStore()
    web = Hub(broken, store.signals, "web")
    web.follow("resp", watched=True)
    accounts = Settling(broken)
    work = {
        "lookout": Lookout(broken, broken, broken).run,
        "vigil": keys.run,
        "queue places": QueuePlaces(broken, broken).run,
        "settling": accounts.start,
        "hub": web.start,
    }[which]
    async with running(work()), asyncio.timeout(20):
        while broken.asked < 3:
            await asyncio.sleep(0.001)
    await accounts.close()
    await web.close()
    assert caplog.text.count("KeyError") >= 2


async def test_looks_that_fail_come_less_and_less_often_and_as_before_once_one_succeeds(monkeypatch, caplog):
    pauses, works = [], iter([False, False, False, False, True, False, True])
    done = asyncio.Event()

    async def look() -> None:
        if not next(works):
            raise KeyError

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 7:
            done.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(rounds, "LONGEST", 5.0)
    monkeypatch.setattr(rounds.asyncio, "sleep", sleep)
    async with running(rounds.rounds(look, 1.0, "a look")), asyncio.timeout(20):
        await done.wait()
    assert pauses == [2.0, 4.0, 5.0, 5.0, 1.0, 2.0, 1.0]
    assert caplog.text.count("a look failed; the next look is in") == 5
