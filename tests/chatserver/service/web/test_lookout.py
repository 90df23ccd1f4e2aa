"""Engines that are gone are noticed by their silence, and no living one is taken for gone."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest

from chatserver.errors import Unavailable
from chatserver.ports.registry import EngineReport, EngineState
from chatserver.service.web.lookout import GRACE, Lookout

HALF = GRACE / 2


@dataclass
class Fleet:
    """Engines as a store knows them: which have reported, which listen, whose jobs were put back."""

    reported: set[str] = field(default_factory=set)
    heard: set[str] = field(default_factory=set)
    put_back: list[str] = field(default_factory=list)
    now: float = 100.0
    away: bool = False

    async def engines(self) -> list[EngineReport]:
        return [EngineReport(one, EngineState.READY, "fine", time.time()) for one in sorted(self.reported)]

    async def drop(self, engine_id: str) -> None:
        self.reported.discard(engine_id)

    async def listening(self, engine_ids) -> set[str]:
        if self.away:
            raise Unavailable("the store is away")
        return self.heard & set(engine_ids)

    async def release(self, engine_id: str) -> int:
        self.put_back.append(engine_id)
        return 1


@pytest.fixture
def fleet() -> Fleet:
    return Fleet({"a", "b"}, {"a", "b"})


@pytest.fixture
def look(fleet):
    """Looks a little later."""
    one = Lookout(fleet, fleet, fleet, lambda: fleet.now)  # type: ignore[arg-type]

    async def after(seconds: float = 0.0) -> None:
        fleet.now += seconds
        await one.look()

    return after


async def test_an_engine_that_stops_listening_is_gone_after_the_grace(fleet, look):
    await look()
    fleet.heard.discard("a")
    await look(HALF)
    await look(HALF)
    assert fleet.put_back == []
    await look(HALF)
    await look(HALF)
    assert fleet.put_back == ["a"] and fleet.reported == {"b"}


async def test_an_engine_that_lost_its_connection_has_time_to_come_back(fleet, look):
    await look()
    for _ in range(5):
        fleet.heard.discard("a")
        await look(HALF)
        fleet.heard.add("a")
        await look(GRACE)
    assert fleet.put_back == []


async def test_an_engine_that_never_listened_is_still_loading(fleet, look):
    fleet.heard.clear()
    await look()
    await look(10 * GRACE)
    assert fleet.put_back == []


async def test_an_engine_that_lives_and_cannot_be_heard_loses_its_answers_once(fleet, look):
    await look()
    fleet.heard.clear()
    for _ in range(10):
        fleet.reported |= {"a", "b"}  # they go on reporting
        await look(GRACE)
    assert sorted(fleet.put_back) == ["a", "b"]


async def test_a_store_that_cannot_be_asked_has_seen_nobody_go(fleet, look):
    """The time for which it was away does not count as silence."""
    await look()
    fleet.heard.discard("a")
    for _ in range(5):
        await look(HALF)
        fleet.away = True
        await look(GRACE)
        fleet.away = False
    assert fleet.put_back == []
