"""What idle work costs those who wait for a first token, with many conversations at once.

    on │ off │ on │ off │ …   blocks of one run on one engine: each turn belongs to the block in which it was asked
    A          B              the blocks with idle work are two groups: how far they differ is the noise

The conversations are full from the start, so that each has a cut every four or five turns: without idle work that
is one long prefill for its own turn, and one long step for everybody else's.

    python -m tests.bench.reuse.cost               four minutes, on a machine that nobody else uses
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from chatserver.domain.response import Truncation
from chatserver.service.engine.prefixes import Prefixes
from tests.bench.foreign import Foreign
from tests.bench.report import keep, percentile, table
from tests.bench.reuse.engines import CONTEXT, DATA, MODEL, started
from tests.bench.reuse.figures import MAX_IDLE_COST
from tests.bench.reuse.talk import WORDS, seeded
from tests.chatserver.service.engine_role import ended, first_turn, next_turn, worker
from tests.stores import empty_store

BLOCK, SETTLED = 15.0, 3.0
"""Seconds of a block, and those at its beginning whose turns do not count: they may owe something to the last one."""
ORDER = ("A", "off", "B", "off")
DRAWS = 2000
"""Bootstrap samples that an interval is of."""


@dataclass(slots=True)
class Cost:
    """TTFT in milliseconds by block: "A" and "B" with idle work, "off". `computed`: tokens made in idle time."""

    ttft: dict[str, list[float]] = field(default_factory=lambda: {"A": [], "B": [], "off": []})
    computed: int = 0
    foreign: float = 0.0

    def ratio(self, one: str, other: str, share: float) -> tuple[float, float, float]:
        """Return by how much a percentile of `one` is above that of `other`, and between what (90 % of the draws).

        `one`, `other`: names of blocks, several of them in one string.
        """
        first, second = self._of(one), self._of(other)
        source = random.Random(1)
        drawn = sorted(
            percentile(source.choices(first, k=len(first)), share)
            / percentile(source.choices(second, k=len(second)), share)
            - 1
            for _ in range(DRAWS)
        )
        found = percentile(first, share) / percentile(second, share) - 1
        return found, drawn[DRAWS // 20], drawn[-DRAWS // 20]

    def _of(self, names: str) -> list[float]:
        return [ms for name in names.split() for ms in self.ttft[name]]


class Blocks:
    """Switches the idle work of a role on and off."""

    def __init__(self, prefixes: Prefixes) -> None:
        self._prefixes = prefixes
        self._want = prefixes.want
        self.now = "A"
        self.since = time.monotonic()

    async def run(self) -> None:
        """Go from block to block until cancelled."""
        for self.now in itertools.cycle(ORDER):
            self.since = time.monotonic()
            self._prefixes.want = self._want if self.now != "off" else lambda prefix: None
            await asyncio.sleep(BLOCK)

    @property
    def settled(self) -> str | None:
        """The block that a turn which is asked now counts for."""
        return self.now if time.monotonic() - self.since >= SETTLED else None


async def measure(store, engine, *, conversations: int, think: float, seconds: float) -> Cost:
    """Hold the conversations for so long; return what their turns waited for."""
    cost, until = Cost(), time.monotonic() + seconds
    async with worker(store, engine, lease=600) as role:
        prefixes = role._parts.prefixes
        blocks = Blocks(prefixes)
        switching = asyncio.create_task(blocks.run())
        others = Foreign()
        talks = [_talk(store, engine, blocks, cost, n, think, until) for n in range(conversations)]
        try:
            await asyncio.gather(*talks)
        finally:
            switching.cancel()
        cost.foreign, cost.computed = others.share(), prefixes.counts.computed
    return cost


async def _talk(store, engine, blocks: Blocks, cost: Cost, seed: int, think: float, until: float) -> None:
    source, before = random.Random(seed), None
    options = {"truncation": Truncation.AUTO, "model": engine.card.name}
    await asyncio.sleep(source.uniform(0, think))
    for step in seeded(seed, 10_000, events=False):
        if time.monotonic() > until:
            return
        options["max_output_tokens"] = step.tokens
        if before is None:
            turn = first_turn(_long(engine.tokenizer, seed, source), **options)
        else:
            turn = next_turn(before, step.text, **options)
        block = blocks.settled if before else None
        begun = await store.turns.begin(turn, queue_bound=1000)
        before = await ended(store, begun.response_id, 300)
        assert before.outcome.failure is None, before.outcome.failure
        if block is not None:
            cost.ttft[block].append(before.outcome.timing.ttft_ms)
        await asyncio.sleep(think * source.uniform(0.5, 1.5))


def _long(tokenizer, seed: int, source: random.Random) -> str:
    """Return a first message that takes a third to three quarters of the window."""
    text, wanted = f"{seed}:", source.randint(CONTEXT // 3, 3 * CONTEXT // 4)
    while len(tokenizer.segment("user", text)) < wanted:
        text += "".join(f" {word}" for word in source.choices(WORDS, k=8))
    return text


def report(options: argparse.Namespace, cost: Cost) -> None:
    """Print the table and the verdict, keep the figures."""
    rows = [
        (name, len(cost.ttft[name]), percentile(cost.ttft[name], 0.5), percentile(cost.ttft[name], 0.99))
        for name in ("A", "B", "off")
    ]
    title = f"\nTTFT in ms: {options.conversations} at once, others used {cost.foreign:.0%} of the processors"
    print(table(title, ("idle work", "turns", "p50", "p99"), rows))
    found = {}
    for share in (0.5, 0.99):
        for what, one, other in (("cost of idle work", "A B", "off"), ("noise: A over B", "A", "B")):
            middle, low, high = cost.ratio(one, other, share)
            found[f"{what}, p{share * 100:g}"] = (middle, low, high)
            print(f"{what}, p{share * 100:g}: {middle:+.0%} ({low:+.0%} to {high:+.0%})")
    _, low, high = found["cost of idle work, p99"]
    # Who else uses the machine disturbs all blocks alike: that widens the interval, and nothing else.
    verdict = "met   " if high <= MAX_IDLE_COST else "MISSED" if low > MAX_IDLE_COST else "unsure"
    print(
        f"{verdict}  cost in TTFT p99 (wanted ≤ {MAX_IDLE_COST:.0%}); {cost.computed} tokens made in idle time"
    )
    asked = {key: str(value) for key, value in vars(options).items()}
    print(f"\nkept in {keep('reuse-cost', {'options': asked, **asdict(cost), 'found': found})}")


async def run(options: argparse.Namespace) -> Cost:
    """Start the engine and a store, and measure."""
    async with (
        started(options.model, options.data_dir, CONTEXT, 1, options.conversations) as engine,
        empty_store() as store,
    ):
        return await measure(
            store,
            engine,
            conversations=options.conversations,
            think=options.think,
            seconds=options.seconds,
        )


def main() -> None:
    """Read the options, run, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default=MODEL, help="a model's name, or scripted")
    parser.add_argument("--data-dir", type=Path, default=DATA, help="where models are prepared")
    parser.add_argument("--conversations", type=int, default=6)
    parser.add_argument("--think", type=float, default=2.0, help="seconds between turns, half more or less")
    parser.add_argument("--seconds", type=float, default=210.0)
    options = parser.parse_args()
    if options.seconds < len(ORDER) * BLOCK:
        parser.error(f"--seconds: expected at least {len(ORDER) * BLOCK:g}, one block of each kind")
    report(options, asyncio.run(run(options)))


if __name__ == "__main__":
    main()
