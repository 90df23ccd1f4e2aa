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
from engine.sglang_engine import SglangEngine
from tests.chatserver.service.engine_role import at_rest, first_turn, next_turn, run_turn, worker
from tests.engine.conftest import new_id
from tests.stores import running_store

pytestmark = [pytest.mark.sglang, pytest.mark.asyncio(loop_scope="session")]

PREFIX = 1000
"""Tokens: more than three chunks."""
HISTORY = 340
"""Tokens that may follow the instructions: a cut every few turns."""
NEW_CHUNKS = 3


async def settled(prefixes: Prefixes) -> None:
    async with asyncio.timeout(60):
        while not prefixes.idle:
            await asyncio.sleep(0.01)


class Watched:
    """The engine, and when its prefills began and ended."""

    def __init__(self, engine: SglangEngine, upto: int) -> None:
        self._engine, self._upto = engine, upto
        self.begun = asyncio.Event()
        """Set as the prefill number `upto` begins."""
        self.began: list[float] = []
        self.over: list[float] = []

    def __getattr__(self, name: str):
        return getattr(self._engine, name)

    async def prefill(self, request_id, ids, salt=""):
        self.began.append(time.monotonic())
        if len(self.began) == self._upto:
            self.begun.set()
        try:
            return await self._engine.prefill(request_id, ids, salt)
        finally:
            self.over.append(time.monotonic())


async def test_it_gives_way_within_a_step(sglang_engine):
    """A turn comes in the middle of a prefill: no other step of it begins before the turn has its token."""
    engine, watched = sglang_engine, Watched(sglang_engine, NEW_CHUNKS)
    prefixes = Prefixes(watched)
    working = asyncio.create_task(prefixes.run())
    ids = tuple(1000 + (i * 37) % 30_000 for i in range(PREFIX))
    prefixes.want(Prefix("somebody", "salt", ids))
    await asyncio.wait_for(watched.begun.wait(), 60)
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


@pytest.mark.timeout(300)
async def test_no_turn_pays_for_a_cut(sglang_engine):
    """Past the bound on the history, the turn after a cut computes its new message and no more."""
    engine, tokenizer = sglang_engine, sglang_engine.tokenizer
    options = {"model": engine.card.name, "truncation": Truncation.AUTO, "max_output_tokens": 8}
    options["post_instructions"] = HISTORY
    cuts = 0
    with running_store() as running:
        store = await ValkeyStore.open(running.url)
        async with worker(store, engine, lease=60) as role:
            response = await run_turn(store, first_turn("The tide comes in. " * 20, **options))
            for number in range(8):
                await at_rest(role)
                text = f"{number}: " + "and the tide goes out again " * 10
                before, response = response, await run_turn(store, next_turn(response, text, **options))
                usage = response.outcome.usage
                new = len(tokenizer.segment("user", text)) + len(tokenizer.cue())
                assert usage.prompt - usage.cached <= new + len(tokenizer.tail((0,))) + 1
                cuts += response.outcome.ledger.cut != before.outcome.ledger.cut
        await store.close()
    assert cuts >= 2


async def test_a_prefix_is_nothing_to_another_tenant(sglang_engine):
    """Under another salt the same ids are computed anew."""
    ids = tuple(2000 + (i * 41) % 30_000 for i in range(200))
    assert await sglang_engine.prefill(new_id(), ids, "one") == 0
    assert await sglang_engine.prefill(new_id(), ids, "one") == len(ids) - 1
    assert await sglang_engine.prefill(new_id(), ids, "other") == 0
