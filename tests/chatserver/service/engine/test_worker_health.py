"""What the engine role makes of its engine's health: a lost engine ends it, a leak is told."""

import asyncio
import logging
from collections import Counter
from dataclasses import replace

import pytest

from chatserver.service.engine import worker as worker_module
from chatserver.service.engine.worker import Worker, WorkerLimits
from engine.contract import EngineLost
from tests.chatserver.service.engine_role import identifier, parts_of, run_turn, scripted, stateless, worker


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    monkeypatch.setattr(worker_module, "REPORT_INTERVAL", 0.02)


async def test_an_engine_that_is_lost_while_nothing_runs(store):
    """No answer is there that would notice: the role ends all the same, so that it is started anew."""
    async with scripted() as engine:
        role = Worker(
            identifier("eng"),
            parts_of(store, engine),
            store.signals,
            store.registry,
            WorkerLimits(max_running=1, lease=2, drain=0),
            caches=store.caches,
        )
        running = asyncio.create_task(role.run())
        await asyncio.sleep(0.1)
        assert not running.done()
        await engine.close()
        with pytest.raises(BaseExceptionGroup) as raised:
            await asyncio.wait_for(running, 60)
    assert raised.group_contains(EngineLost, match="the engine was closed")


async def test_a_leak_is_logged_once_and_reported(store, monkeypatch, caplog):
    """Tokens of the pool that belong to nobody: in the log when their number changes, in every report."""
    async with scripted() as engine:
        healthy = engine.health
        monkeypatch.setattr(engine, "health", lambda: _leaky(healthy))
        with caplog.at_level(logging.ERROR):
            async with worker(store, engine), asyncio.timeout(60):
                while [report.kv_leaked for report in await store.registry.engines()] != [7]:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.1)
    told = [record.getMessage() for record in caplog.records if "belong to nobody" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("7 of ")


async def test_what_was_done_is_reported(store):
    """Ended answers by status, their tokens, and when their first tokens came: the sums of what their accounts say."""
    async with scripted() as engine, worker(store, engine), asyncio.timeout(60):
        asked = (
            stateless("Hi", max_output_tokens=4),
            stateless("Hello there"),
            stateless("Hi", max_output_tokens=4),
        )
        outcomes = [(await run_turn(store, turn)).outcome for turn in asked]
        while sum((work := (await store.registry.engines())[0].work).answers.values()) < len(outcomes):
            await asyncio.sleep(0.01)
    assert work.answers == Counter(outcome.status for outcome in outcomes)
    for name in ("prompt", "cached", "output"):
        assert getattr(work, name) == sum(getattr(outcome.usage, name) for outcome in outcomes) > 0
    assert sum(work.ttft) == len(outcomes)
    assert work.ttft_seconds == pytest.approx(sum(outcome.timing.ttft_ms for outcome in outcomes) / 1000)


async def _leaky(healthy):
    return replace(await healthy(), kv_leaked=7)
