"""Share of the prompts that comes from the KV cache, by truncation policy, with idle work and without.

    conversation ── turn ── turn ── … over a small window ──> engine role (in this process, on a real store)

reuse = cached / reusable: does the plumbing keep what could be kept (goal ≥ 0.99; an idle prefill that was
dropped may have been computed after all, and is not counted as reusable: then it may be above 1).
share = cached / prompt: does the policy leave something to keep (goal ≥ 0.93, naive ≤ 0.40).
over = prefilled in the foreground beyond the new message, its template and the last token (goal: p99 ≤ one page).
bound = share, if all whole pages that can be known before a message comes were there: what no cache can exceed.
wasted = computed in idle time, and taken from the cache by no prompt; what a conversation's end leaves over counts.
even = the spread of TTFT if all turns had equally many new tokens (by the slope, `per token`).

    python -m tests.bench.reuse                           the real engine: five minutes on two cores
    python -m tests.bench.reuse --full                    every scene with every arm: 16 conversations at once, too
    python -m tests.bench.reuse --scenes crowd --arms auto     16 conversations at once, with and without idle work
    python -m tests.bench.reuse --model scripted          seconds; its TTFT says nothing of a model
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from tests.bench.report import keep, table
from tests.bench.reuse.amid import amid
from tests.bench.reuse.arms import Arm, Scene, chosen
from tests.bench.reuse.driver import Conversing
from tests.bench.reuse.engines import CONTEXT, DATA, MODEL, started
from tests.bench.reuse.figures import HEADER, TIMES, Figures, Goal, amid_goals, goals
from tests.bench.reuse.recording import Recording
from tests.bench.reuse.talk import Step, from_file, seeded, write_file
from tests.stores import empty_store

THINK = 4.0
SEED = 20_261_122
Result = tuple[Scene, dict[Arm, Figures]]


async def run(options: argparse.Namespace) -> tuple[list[Result], dict[str, float]]:
    """Run what was asked for; one engine for the scenes of one page size, one empty store for each arm."""
    picked = sorted(chosen(options.scenes, options.arms, full=options.full), key=lambda one: one[0].page)
    results: list[Result] = []
    disturbance: dict[str, float] = {}
    for page, scenes in groupby(picked, key=lambda one: one[0].page):
        together = list(scenes)
        most = max(scene.conversations for scene, _ in together)
        async with started(options.model, options.data_dir, options.context, page, most) as engine:
            for scene, arms in together:
                results.append((scene, {arm: await _arm(engine, scene, arm, options) for arm in arms}))
            if not disturbance and not options.no_amid:
                async with empty_store() as store:
                    disturbance = await amid(store, Recording(engine))
    return results, disturbance


async def _arm(engine, scene: Scene, arm: Arm, options: argparse.Namespace) -> Figures:
    talks = await asyncio.to_thread(_talks, scene, options)
    async with empty_store() as store:
        found = await Conversing(store, Recording(engine), scene, arm, options.think).run(talks)
    print(f"{scene.name}:", *found.row(arm.name), flush=True)
    return found


def _talks(scene: Scene, options: argparse.Namespace) -> list[list[Step]]:
    """Return the conversations of a scene: of the file that was given, of one that is written for it, or seeded."""
    count, turns = scene.conversations, options.turns
    if not options.file and not scene.file:
        return [seeded(n, turns, events=scene.events) for n in range(count)]
    with tempfile.TemporaryDirectory(prefix="chatserver-talks-") as folder:
        path = options.file or Path(folder) / "talks.json"
        if not options.file:
            write_file(path, SEED, count, turns)
        return list(from_file(path, turns))[:count]


def report(options: argparse.Namespace, results: list[Result], disturbance: dict[str, float]) -> list[Goal]:
    """Print tables and goals, keep the figures; return the goals."""
    reached: list[Goal] = []
    for scene, found in results:
        title = (
            f"\n{scene.name}: {options.model}, window {options.context}, {scene.conversations} at once, "
            f"page {scene.page}, {options.turns} turns, events {scene.events}, reasoning {scene.reasoning}"
        )
        print(table(title, HEADER, [figures.row(arm.name) for arm, figures in found.items()]))
        print(table("", TIMES, [figures.times(arm.name) for arm, figures in found.items()]))
        reached += goals(scene, found)
    reached += amid_goals(disturbance)
    if disturbance:
        shown = ", ".join(f"{name} {value:.0f}" for name, value in disturbance.items())
        print(f"\nTTFT in ms of a turn that comes amid idle work for somebody else: {shown}")
    print("\n" + "\n".join(map(str, reached)))
    asked = {key: str(value) for key, value in vars(options).items()}
    kept = {
        "options": asked,
        "scenes": [
            {**asdict(scene), "arms": {arm.name: asdict(figures) for arm, figures in found.items()}}
            for scene, found in results
        ],
        "amid": disturbance,
        "goals": [asdict(goal) for goal in reached],
    }
    print(f"\nkept in {keep('reuse', kept)}")
    return reached


def main() -> None:
    """Read the options, run, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default=MODEL, help="a model's name, or scripted")
    parser.add_argument("--data-dir", type=Path, default=DATA, help="where models are prepared")
    parser.add_argument("--context", type=int, default=CONTEXT, help="window in tokens")
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument(
        "--think", type=float, default=THINK, help="seconds that a user reads before the next message"
    )
    parser.add_argument(
        "--scenes",
        default="plain,events,reasoning,page64,file",
        help="plain, events, reasoning, page64, file, crowd, all",
    )
    parser.add_argument("--arms", default="", help="policies by a part of their names, separated by commas")
    parser.add_argument(
        "--full", action="store_true", help="every scene with every arm: more than half an hour"
    )
    parser.add_argument("--file", type=Path, help="a ShareGPT-like file in place of the seeded conversations")
    parser.add_argument("--no-amid", action="store_true", help="leave out turns that come amid idle work")
    options = parser.parse_args()
    try:
        chosen(options.scenes, options.arms, full=options.full)
    except ValueError as error:
        parser.error(str(error))
    report(options, *asyncio.run(run(options)))


if __name__ == "__main__":
    main()
