"""Only the starts: how long first tokens take when many ask at once, and what a start costs each process.

    python -m tests.bench.relay.begin            # cores as in the relay bench; arms run in turn within each round

A start is the whole of a short answer. The first round of an arm is thrown away: scripts and connections are new in it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import uvloop

from tests.bench.relay.arms import OTHER_CORE, Arm, Bare, Ours
from tests.bench.relay.client import CHAT, SSE, WEBSOCKET, Door
from tests.bench.relay.processes import cpu_seconds, pin
from tests.bench.relay.starts import starts
from tests.bench.report import keep, percentile, table

PAUSE = 0.5
"""Seconds between rounds: what the last one left behind is over then."""


async def measure(arm: Arm, door: Door, count: int, *, connected: bool) -> dict[str, float]:
    """Begin `count` answers at once; return times in ms, and µs of CPU a start."""
    await asyncio.sleep(PAUSE)
    pids = {"front": arm.front, "client": os.getpid()}
    if isinstance(arm, Ours):
        pids |= {role: arm.pid(role) for role in ("engine", "store")}
    before = {role: cpu_seconds(pid) for role, pid in pids.items()}
    times = sorted(await starts(arm, door, count, connected=connected))
    cost = {role: (cpu_seconds(pid) - before[role]) / count * 1e6 for role, pid in pids.items()}
    return {
        "p10": percentile(times, 0.1),
        "p50": percentile(times, 0.5),
        "p90": percentile(times, 0.9),
        **cost,
    }


def main() -> None:
    """Print the table, keep the figures."""
    parser = argparse.ArgumentParser(prog="tests.bench.relay.begin", description=__doc__)
    parser.add_argument("--starts", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rate", type=float, default=50.0, help="tokens per second of each answer")
    parser.add_argument("--nice", type=int, default=0, help="niceness; below 0 where others work")
    parser.add_argument("--connected", action="store_true", help="on connections that were there before")
    parser.add_argument("--scripted", action="store_true", help="ours without SGLang: the scripted engine")
    parser.add_argument("--stock", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    pin(os.getpid(), OTHER_CORE, children=False, niceness=options.nice)
    rounds: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        ours = stack.enter_context(
            Ours(folder, options.rate, options.starts, options.nice, scripted=options.scripted)
        )
        arms: dict[str, tuple[Arm, Door]] = {
            f"ours: {door.name}": (ours, door) for door in (SSE, WEBSOCKET, CHAT)
        }
        if options.stock:
            stock = stack.enter_context(Bare(folder, "stock", options.rate, options.nice, ready="/v1/models"))
            arms[STOCK] = stock, CHAT
        for number in range(1 + options.rounds):
            for arm, (server, door) in arms.items():
                figures = uvloop.run(measure(server, door, options.starts, connected=options.connected))
                if number:
                    rounds.setdefault(arm, []).append(figures)
    on = "connections that were there" if options.connected else "new connections"
    title = f"{options.starts} starts at once on {on}, {options.rounds} rounds, medians (min–max)"
    print(table(title, HEADER, [_row(figures, rounds.get(STOCK), arm) for arm, figures in rounds.items()]))
    print(f"\nkept in {keep('begin', {'options': vars(options), 'rounds': rounds})}")


STOCK = "stock SGLang: Chat Completions, SSE"
COLUMNS = ("p10", "p50", "p90", "front", "engine", "store", "client")
HEADER = ("arm", "TTFT p10 ms", "p50", "p90", "front CPU µs", "engine", "store", "client", "p50 ÷ stock")


def _row(figures: list[dict[str, float]], stock: list[dict[str, float]] | None, arm: str) -> list[object]:
    cells = [
        _spread([one[name] for one in figures], ".0f") if name in figures[0] else "–" for name in COLUMNS
    ]
    if stock is None:
        return [arm, *cells, "–"]
    return [arm, *cells, _spread([a["p50"] / b["p50"] for a, b in zip(figures, stock, strict=True)], ".2f")]


def _spread(values: list[float], form: str) -> str:
    return f"{median(values):{form}} ({min(values):{form}}–{max(values):{form}})"


if __name__ == "__main__":
    main()
