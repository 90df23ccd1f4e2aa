"""What relaying one token costs the process that faces the clients, and how late tokens come.

    core 0   the process under test
    core 1   engine or stub scheduler, store, clients

Arms run in turn within each round; the medians of the rounds are compared. In every round every
stream must bring every token once and in order, and all streams of an arm the same text. For what a core can do at most
give a `--rate` that it cannot follow. First, in each round, as many streams start at once.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

import uvloop

from tests.bench.relay import client, gateway
from tests.bench.relay.arms import OTHER_CORE, Arm, Bare, Ours
from tests.bench.relay.client import CHAT, SSE, WEBSOCKET, Door
from tests.bench.relay.processes import busy, cpu_seconds, pin
from tests.bench.relay.starts import starts
from tests.bench.report import keep, percentile, table

RAMP = 100
"""New streams a second."""
WARM = 1.0
"""Seconds between the last stream's start and the measurement."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One arm in one round. Times in the unit of their name; `client`: share of its core that the client used."""

    cpu_us: float
    tokens: int
    per_second: float
    """Tokens delivered."""
    store_us: float
    engine_us: float
    """CPU of the processes behind ours for a token: the durable tape, and with it the scripted engine's own work."""
    merged: float
    """Tokens a delta: above 1 the server was late, and cheaper for it."""
    share: float
    added_p50_ms: float
    added_p99_ms: float
    late_p99_ms: float
    client: float
    foreign: float
    text: str
    ttft_ms: list[float]
    """Of as many starts at once, before the streams."""


async def measure(arm: Arm, door: Door, streams: int, rate: float, seconds: float) -> Figures:
    """Run `streams` streams, measure for `seconds` while all of them run."""
    ttft_ms = await starts(arm, door, streams)
    tokens = int(rate * (streams / RAMP + WARM * 2 + seconds))
    sockets = []
    for _ in range(streams):
        sockets.append(await client.connect(door, arm.port, tokens))
        await asyncio.sleep(1 / RAMP)
    await asyncio.sleep(WARM)
    behind = [arm.pid(role) for role in ("store", "engine")] if isinstance(arm, Ours) else []
    tape = list(map(cpu_seconds, behind))
    before = time.perf_counter(), cpu_seconds(arm.front), cpu_seconds(os.getpid()), busy(0)
    await asyncio.sleep(seconds)
    after = time.perf_counter(), cpu_seconds(arm.front), cpu_seconds(os.getpid()), busy(0)
    tape = [cpu_seconds(pid) - was for pid, was in zip(behind, tape, strict=True)] or [0.0, 0.0]
    async with asyncio.timeout(client.READ_WITHIN):
        await asyncio.gather(*(socket.ended for socket in sockets))
    read = [client.parse(door, socket.arrivals) for socket in sockets]
    wall, cpu = after[0] - before[0], after[1] - before[1]
    delivered, deltas, gaps, late = 0.0, 0, [], []
    for stream in read:
        assert stream.tokens == tokens, (stream.tokens, tokens)
        in_window = [n for at, n, _ in stream.pieces if before[0] <= at < after[0]]
        delivered += sum(in_window) / len(stream.text) * tokens
        deltas += len(in_window)
        times = [at for at, _, _ in stream.pieces]
        gaps += [max(0.0, b - a - 1 / rate) * 1000 for a, b in pairwise(times) if before[0] <= b < after[0]]
        late += _lateness(stream.pieces, rate)
    return Figures(
        cpu_us=cpu / delivered * 1e6,
        tokens=round(delivered),
        per_second=delivered / wall,
        store_us=tape[0] / delivered * 1e6,
        engine_us=tape[1] / delivered * 1e6,
        merged=delivered / deltas,
        share=cpu / wall,
        added_p50_ms=percentile(gaps, 0.5),
        added_p99_ms=percentile(gaps, 0.99),
        late_p99_ms=percentile(late, 0.99),
        client=(after[2] - before[2]) / wall,
        foreign=max(0.0, (after[3] - before[3] - cpu) / wall),
        text=client.digest(read),
        ttft_ms=ttft_ms,
    )


def _lateness(pieces: list[tuple[float, int, int]], rate: float) -> list[float]:
    """Return how many ms each delta came behind the stream's own earliest schedule, for doors that number tokens."""
    numbered, number = [], 0
    for at, _, count in pieces:
        number += count
        numbered.append(at - number / rate)
    start = min(numbered)
    return [(moment - start) * 1000 for moment in numbered] if number else [0.0]


def main() -> None:
    """Print the table, keep the figures."""
    options = _options()
    pin(os.getpid(), OTHER_CORE, children=False, niceness=options.nice)
    arms: dict[str, tuple[Arm, Door]] = {}
    rounds: dict[str, list[Figures]] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        ours = stack.enter_context(
            Ours(folder, options.rate, options.streams, options.nice, scripted=options.scripted)
        )
        for door in (SSE, WEBSOCKET, CHAT):
            arms[f"ours: {door.name}"] = ours, door
        arms["floor: bare uvloop, SSE"] = (
            stack.enter_context(Bare(folder, "floor", options.rate, options.nice)),
            SSE,
        )
        if options.stock:
            stock = stack.enter_context(Bare(folder, "stock", options.rate, options.nice, ready="/v1/models"))
            arms["stock SGLang: Chat Completions, SSE"] = stock, CHAT
        if gateway.INSTALLED:
            rust = stack.enter_context(
                Bare(folder, "gateway", options.rate, options.nice, ready="/v1/models")
            )
            arms["Rust: SGLang's gateway, Chat Completions, SSE"] = rust, CHAT
        else:
            print("without the Rust arm: it needs `pip install --no-deps sglang-router==0.3.2`")
        wanted = {arm: pair for arm, pair in arms.items() if options.only in arm}
        for _ in range(options.rounds):
            for arm, (server, door) in wanted.items():
                figures = uvloop.run(measure(server, door, options.streams, options.rate, options.seconds))
                rounds.setdefault(arm, []).append(figures)
                print(arm, replace(figures, ttft_ms=[]), flush=True)
    title = (
        f"{options.streams} streams × {options.rate:g} tokens/s, {options.rounds} rounds, medians (min–max)"
    )
    print("\n" + table(title, HEADER, [_row(arm, rounds) for arm in rounds]))
    kept = {arm: [asdict(figures) for figures in of_arm] for arm, of_arm in rounds.items()}
    print(f"\nkept in {keep('relay', {'options': vars(options), 'rounds': kept})}")


HEADER = (
    "arm",
    "CPU µs/token",
    "÷ stock",
    "÷ floor",
    "÷ Rust",
    "tokens/delta",
    "core",
    "tokens/core s",
    "store µs",
    "engine µs",
    "TTFT p50 ms",
    "÷ stock",
    "added p50 ms",
    "added p99 ms",
    "late p99 ms",
    "client core",
)


def _row(arm: str, rounds: dict[str, list[Figures]]) -> list[object]:
    figures = rounds[arm]
    stock = next((name for name in rounds if name.startswith("stock")), None)
    floor = next((name for name in rounds if name.startswith("floor")), None)
    rust = next((name for name in rounds if name.startswith("Rust")), None)

    def middle(field: str) -> float:
        return median(getattr(one, field) for one in figures)

    def ratio(to: str | None) -> str:
        if to is None:
            return "–"
        return _spread([a.cpu_us / b.cpu_us for a, b in zip(figures, rounds[to], strict=True)], "{:.2f}")

    return [
        arm,
        _spread([one.cpu_us for one in figures], "{:.1f}"),
        ratio(stock),
        ratio(floor),
        ratio(rust),
        middle("merged"),
        middle("share"),
        round(median(one.per_second / one.share for one in figures)),
        middle("store_us"),
        middle("engine_us"),
        round(median(median(one.ttft_ms) for one in figures)),
        "–" if stock is None else _spread(_first_ratios(figures, rounds[stock]), "{:.2f}"),
        middle("added_p50_ms"),
        _spread([one.added_p99_ms for one in figures], "{:.1f}"),
        middle("late_p99_ms"),
        middle("client"),
    ]


def _first_ratios(figures: list[Figures], others: list[Figures]) -> list[float]:
    return [median(a.ttft_ms) / median(b.ttft_ms) for a, b in zip(figures, others, strict=True)]


def _spread(values: list[float], form: str) -> str:
    return f"{form.format(median(values))} ({form.format(min(values))}–{form.format(max(values))})"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.bench.relay", description=__doc__)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--rate", type=float, default=50.0, help="tokens per second of each stream")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nice", type=int, default=0, help="niceness; below 0 where others work")
    parser.add_argument("--only", default="", help="arms whose name contains this")
    parser.add_argument("--scripted", action="store_true", help="ours without SGLang: the scripted engine")
    parser.add_argument("--stock", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
