"""Idle work on the real engine: it gives way within a step, and no turn pays for a cut."""

from __future__ import annotations

import asyncio
import time

import pytest

from chatserver.adapters.valkey import ValkeyStore
from chatserver.domain.response import Truncation
from chatserver.service.engine.prefixes import Prefixes
from chatserver.service.engine.wanted import Prefix
from engine.contract import GenerateRequest, Sampling
from engine.models import prepare
from engine.settings import EngineSettings
from engine.sglang_engine import SglangEngine
from tests.chatserver.service.engine_role import at_rest, first_turn, next_turn, run_turn, worker
from tests.program import KEPT
from tests.stores import running_store

pytestmark = [pytest.mark.e2e, pytest.mark.sglang]

MODEL = "smollm2-135m-instruct"
WINDOW = 1024
NEW_CHUNKS = 3


async def settled(prefixes: Prefixes) -> None:
    async with asyncio.timeout(60):
        while not prefixes.idle:
            await asyncio.sleep(0.01)


class Watched:
    """The engine, and when its prefills began and ended."""

    def __init__(self, engine: SglangEngine) -> None:
        self._engine = engine
        self.began: list[float] = []
        self.over: list[float] = []

    def __getattr__(self, name: str):
        return getattr(self._engine, name)

    async def prefill(self, request_id, ids, salt=""):
        self.began.append(time.monotonic())
        try:
            return await self._engine.prefill(request_id, ids, salt)
        finally:
            self.over.append(time.monotonic())


async def gives_way_within_a_step(engine: SglangEngine) -> None:
    """A turn comes in the middle of a prefill: no other step of it begins before the turn has its token."""
    watched = Watched(engine)
    prefixes = Prefixes(watched)
    working = asyncio.create_task(prefixes.run())
    ids = tuple(1000 + (i * 37) % 30_000 for i in range(WINDOW - 8))
    prefixes.want(Prefix("somebody", "salt", ids))
    async with asyncio.timeout(60):
        while len(watched.began) < NEW_CHUNKS:
            await asyncio.sleep(0.001)
    assert len(watched.over) == NEW_CHUNKS - 1, "a chunk is under way"
    prefixes.hold("turn", "another")
    request = GenerateRequest("a" * 32, ids[:20][::-1], Sampling(max_tokens=1, temperature=0.0), "other")
    async for _ in engine.generate(request):
        pass
    assert len(watched.began) == NEW_CHUNKS, "nothing began while the turn waited for its first token"
    assert len(watched.over) == NEW_CHUNKS, "what was under way ended within the step"
    assert prefixes.counts.aborted > 0 and not prefixes.idle
    prefixes.release("turn")
    await settled(prefixes)
    assert await engine.prefill("b" * 32, ids, "salt") == len(ids) - 1
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)


async def no_turn_pays_for_a_cut(engine: SglangEngine, store: ValkeyStore) -> None:
    """Past the window, the turn after a cut computes its new message and no more."""
    options = {"model": MODEL, "truncation": Truncation.AUTO, "max_output_tokens": 12}
    cuts, tokenizer = 0, engine.tokenizer
    async with worker(store, engine, lease=60) as role:
        response = await run_turn(store, first_turn("The tide comes in. " * 25, **options))
        for number in range(16):
            await at_rest(role)
            text = f"{number}: " + "and the tide goes out again " * 15
            before, response = response, await run_turn(store, next_turn(response, text, **options))
            usage = response.outcome.usage
            new = len(tokenizer.segment("user", text)) + len(tokenizer.cue()) + len(tokenizer.tail((0,))) + 1
            assert usage.prompt - usage.cached <= new
            cuts += response.outcome.ledger.cut != before.outcome.ledger.cut
        probe = first_turn(text, **options)
        assert (await run_turn(store, probe)).outcome.usage.cached < 40, (
            "the template's head, and nothing more"
        )
    assert cuts >= 2


@pytest.mark.timeout(300)
async def test_idle_work_on_the_real_engine():
    """One start of the engine for both."""
    engine = SglangEngine(
        EngineSettings(prepare(MODEL, KEPT, lambda *_: None), MODEL, context=WINDOW, kv_tokens=8 * WINDOW)
    )
    await engine.start(lambda _: None)
    try:
        await gives_way_within_a_step(engine)
        with running_store() as running:
            store = await ValkeyStore.open(running.url)
            await no_turn_pays_for_a_cut(engine, store)
            await store.close()
    finally:
        await engine.close()
