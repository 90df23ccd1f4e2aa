"""Share of the prompts that comes from the KV cache, by truncation policy, with idle work and without.

    conversation ── turn ── turn ── … over a small window ──> engine role (in this process, on a real store)

reuse = cached / reusable: does the plumbing keep what could be kept (goal ≥ 0.99).
share = cached / prompt: does the policy leave something to keep (goal ≥ 0.93, naive ≤ 0.40).
over = prefilled in the foreground beyond the new message, its template and the last token (goal: p99 ≤ one page).

    python -m tests.bench.reuse                           scripted engine: seconds; its TTFT says nothing of a model
    python -m tests.bench.reuse --model smollm2-135m-instruct      the real engine: minutes
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

from chatserver.adapters.valkey import ValkeyStore
from chatserver.domain.response import Truncation
from tests.bench.report import keep, percentile, table
from tests.bench.reuse.recording import Recording
from tests.bench.reuse.talk import Step, from_file, seeded
from tests.chatserver.service.engine_role import (
    ended,
    first_turn,
    next_turn,
    response_for,
    tokens_on_tape,
    worker,
)
from tests.stores import running_store

ARMS = (
    ("naive, slides every turn", Truncation.RETENTION_RATIO, 1.0, False),
    ("auto", Truncation.AUTO, 0.7, False),
    ("auto + idle", Truncation.AUTO, 0.7, True),
    ("ratio 0.5", Truncation.RETENTION_RATIO, 0.5, False),
    ("ratio 0.5 + idle", Truncation.RETENTION_RATIO, 0.5, True),
    ("ratio 0.8", Truncation.RETENTION_RATIO, 0.8, False),
    ("ratio 0.8 + idle", Truncation.RETENTION_RATIO, 0.8, True),
)
HEADER = (
    *("policy", "turns", "reuse", "share", "prefill p50", "p99", "max", "over p99", "over max"),
    *("TTFT p50", "p99", "cuts", "dropped", "idle", "wasted", "probe"),
)


@dataclass(slots=True)
class Figures:
    """What one arm came to; times in milliseconds, the rest in tokens and times."""

    prefill: list[int] = field(default_factory=list)
    over: list[int] = field(default_factory=list)
    ttft: list[float] = field(default_factory=list)
    cuts: int = 0
    dropped: int = 0
    probe: int = 0
    reuse: float = 0.0
    share: float = 0.0
    idle: int = 0
    wasted: int = 0

    def row(self, name: str) -> tuple[object, ...]:
        """Return a row of the table."""
        parts: list[object] = [name, len(self.prefill), round(self.reuse, 4), round(self.share, 3)]
        parts += [percentile(self.prefill, 0.5), percentile(self.prefill, 0.99), max(self.prefill)]
        parts += [percentile(self.over, 0.99), max(self.over)]
        parts += [percentile(self.ttft, 0.5), percentile(self.ttft, 0.99)]
        return (*parts, self.cuts, self.dropped, self.idle, self.wasted, self.probe)


async def converse(
    store, engine, role, steps: list[Step], options: dict, think: float, found: Figures
) -> None:
    """Run one conversation and note its turns."""
    response = None
    for step in steps:
        turn = _turn(response, step, options)
        begun = await store.turns.begin(turn, queue_bound=1000)
        if step.kind == "stop":
            while await tokens_on_tape(store, begun.response_id) < 8:
                await asyncio.sleep(0.005)
            await store.turns.stop(turn.response.tenant, begun.response_id, 0)
        answer = await ended(store, begun.response_id, 300)
        assert answer.outcome.failure is None, answer.outcome.failure
        _note(engine, response, answer, step, found)
        response = answer
        await asyncio.sleep(think)


def _turn(before, step: Step, options: dict):
    options = {**options, "max_output_tokens": step.tokens}
    if before is None:
        return first_turn(step.text, **options)
    turn = next_turn(before, step.text, **options)
    if step.kind == "regenerate":
        parent = before.inputs[-1] if before.inputs else before.parent
        response = response_for(conversation=before.conversation, parent=parent, **options)
        return replace(turn, response=response, items=(), exclusive=False)
    if step.kind == "edit" and before.inputs and before.parent:
        item = replace(turn.items[0], parent=before.parent)
        return replace(
            turn, response=replace(turn.response, parent=before.parent), items=(item,), exclusive=False
        )
    return turn


def _note(engine, before, answer, step: Step, found: Figures) -> None:
    usage, ledger, tokenizer = answer.outcome.usage, answer.outcome.ledger, engine.tokenizer
    missed = usage.prompt - usage.cached
    asked = 0 if step.kind == "regenerate" else len(tokenizer.segment("user", step.text))
    template = len(tokenizer.cue()) + len(tokenizer.tail((0,))) + 1
    found.prefill.append(missed)
    found.ttft.append(answer.outcome.timing.ttft_ms)
    if before is not None:  # the first turn of all is new as a whole
        found.over.append(max(0, missed - asked - template))
        moved = ledger.cut != before.outcome.ledger.cut
        found.cuts += moved
    found.dropped = max(found.dropped, ledger.start - ledger.pinned)


async def measure(store, engine: Recording, talks: list[list[Step]], arm, think: float) -> Figures:
    """Run one arm: all conversations at once."""
    name, policy, ratio, idle = arm
    found = Figures()
    engine.start_over()
    options = {"truncation": policy, "retention_ratio": ratio, "model": engine.card.name}
    # Different arms must not warm each other: their instructions differ from the first word on.
    options["instructions"] = f"{name}: answer briefly."
    async with worker(store, engine, lease=600) as role:
        if not idle:
            role._parts.prefixes.want = lambda prefix: None
        await asyncio.gather(
            *(converse(store, engine, role, steps, options, think, found) for steps in talks)
        )
        found.idle = role._parts.prefixes.counts.computed
        probe = first_turn(talks[0][0].text, **{**options, "max_output_tokens": 4})
        probe = replace(probe, response=replace(probe.response, tenant=f"not {name}"))
        begun = await store.turns.begin(probe, queue_bound=1000)
        while not (answer := await store.turns.get(f"not {name}", begun.response_id)).status.ended:
            await asyncio.sleep(0.01)
        found.probe = answer.outcome.usage.cached
    found.reuse = engine.cached / max(1, engine.reusable)
    found.share = engine.cached / max(1, engine.prompt)
    found.wasted = engine.wasted
    return found


@contextlib.asynccontextmanager
async def started(options: argparse.Namespace):
    """Start the engine that was asked for."""
    if options.model == "scripted":
        from engine.scripted import ScriptedEngine

        engine = ScriptedEngine(tokens_per_second=1000.0, ttft_ms=2.0, context=options.context)
    else:
        from engine.models.prepare import prepare
        from engine.settings import EngineSettings
        from engine.sglang_engine import SglangEngine

        path = await asyncio.to_thread(prepare, options.model, options.data_dir, lambda *_: None)
        engine = SglangEngine(EngineSettings(model_path=path, name=options.model, context=options.context))
    await engine.start(print)
    try:
        yield Recording(engine)
    finally:
        await engine.close()


async def run(options: argparse.Namespace) -> dict[str, Figures]:
    """Run the arms that were asked for, each on an empty store."""
    results = {}
    async with started(options) as engine:
        for arm in ARMS:
            if options.arms and not any(wanted in arm[0] for wanted in options.arms.split(",")):
                continue
            talks = [seeded(n, options.turns, eventful=options.events) for n in range(options.conversations)]
            if options.file:
                talks = list(from_file(options.file, options.turns))[: options.conversations]
            with running_store() as running:
                store = await ValkeyStore.open(running.url)
                results[arm[0]] = await measure(store, engine, talks, arm, options.think)
                await store.close()
            print(results[arm[0]].row(arm[0]), flush=True)
    return results


def main() -> None:
    """Print the table, keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="scripted")
    parser.add_argument("--data-dir", type=Path, default=Path(tempfile.gettempdir()) / "bench-reuse")
    parser.add_argument("--context", type=int, default=1536)
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--conversations", type=int, default=1)
    parser.add_argument(
        "--think", type=float, default=0.05, help="seconds between an answer and the next message"
    )
    parser.add_argument("--events", action="store_true", help="stops, regenerates and edits")
    parser.add_argument("--arms", default="", help="parts of policies' names, separated by commas")
    parser.add_argument("--file", type=Path, help="a ShareGPT-like file in place of the seeded conversations")
    options = parser.parse_args()
    results = asyncio.run(run(options))
    title = (
        f"{options.model}, window {options.context}, {options.conversations} at once, {options.turns} turns"
    )
    print(table(title, HEADER, [found.row(name) for name, found in results.items()]))
    asked = {key: str(value) for key, value in vars(options).items()}
    rows = {name: dict(zip(HEADER, found.row(name), strict=True)) for name, found in results.items()}
    print(f"\nkept in {keep('reuse', {'options': asked, 'arms': rows})}")


if __name__ == "__main__":
    main()
