"""What a turn loses that comes while idle work for somebody else is under way: at most one scheduler step."""

from __future__ import annotations

import asyncio

from chatserver.adapters.valkey import ValkeyStore
from chatserver.service.engine.prefixes import Prefixes
from chatserver.service.engine.wanted import Prefix
from tests.bench.report import percentile
from tests.bench.reuse.recording import Recording
from tests.chatserver.service.engine_role import run_turn, stateless, worker

ROUNDS = 20
BEGIN_TIMEOUT = 30.0


async def amid(store: ValkeyStore, engine: Recording) -> dict[str, float]:
    """Return TTFT in milliseconds, quiet and amid idle work, and how long the steps took that were in the way."""
    quiet, disturbed, steps = [], [], []
    async with worker(store, engine, lease=600) as role:
        prefixes = role._parts.prefixes
        options = {"model": engine.card.name, "max_output_tokens": 4}
        for number in range(ROUNDS):
            for times, busy in ((quiet, False), (disturbed, True)):
                if busy:
                    ids = tuple(
                        (number * 7919 + i * 31) % (engine.card.vocab_size - 100) + 100
                        for i in range(engine.card.context - 8)
                    )
                    prefixes.want(Prefix("somebody else's", "other", ids))
                    await _under_way(prefixes)
                    await asyncio.sleep(0.02 * (number % 7))  # so that turns come at any moment of a step
                    steps.append(1000 * prefixes._chunks.took)
                answer = await run_turn(store, stateless(f"{busy} {number}: " + "tide " * 24, **options))
                times.append(answer.outcome.timing.ttft_ms)
                prefixes._wanted.drop("somebody else's")
                while not prefixes.idle:
                    await asyncio.sleep(0.005)
    return {
        "quiet p50": percentile(quiet, 0.5),
        "quiet p99": percentile(quiet, 0.99),
        "amid p50": percentile(disturbed, 0.5),
        "amid p99": percentile(disturbed, 0.99),
        "step p50": percentile(steps, 0.5),
        "step max": max(steps),
    }


async def _under_way(prefixes: Prefixes) -> None:
    """Wait until a first chunk is made and another one is under way, or all is over: a scripted engine is fast."""
    async with asyncio.timeout(BEGIN_TIMEOUT):
        while not prefixes.idle and (prefixes._running is None or not prefixes.counts.computed):
            await asyncio.sleep(0.001)
