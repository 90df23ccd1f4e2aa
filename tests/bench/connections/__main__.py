"""What connections cost and do to each other: several web processes, one engine, one store.

    idle      WebSockets that ask for nothing; SSE readers of answers that wait in the queue: memory of each
    stalled   readers that stop reading in a long answer: memory of each once all buffers are full
    crowd     many slow streams: how late tokens come
    pairs     the same with fewer, in turn without and with 10 % stalled readers, and without again: what these do
              to the others, and what this machine does to a ratio without any
    storm     all readers of one web process come back to another at once: until each has the first of the rest
    cuts      readers that lose their connection again and again, on both doors and two processes: until each has more

Every stream must bring every token once and in order.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

import uvloop

from tests.bench.connections import arms
from tests.bench.connections.arms import Figures, Load
from tests.bench.connections.cuts import cuts
from tests.bench.report import keep, table
from tests.fleet import Fleet, Process
from tests.stores import running_store

NAMES = ("cuts", "p50 ms", "p99 ms", "last ms", "CPU share", "KiB each", "kernel KiB each")
LONG = 60_000
"""Tokens of the answer that readers stall in: several times what may be kept for one of them."""
QUICK = {"SCRIPTED_TOKENS_PER_SECOND": "5000", "CHATSERVER_CONTEXT": "65536"}
STALLED = 400
COMPARED = (("with 10 % stalled", 1), ("alone again", 2))
CUT_RATE = 20
"""Tokens a second of each answer whose readers are cut."""


def run(fleet: Fleet, options: argparse.Namespace) -> tuple[dict[str, Figures], list[list[Figures]]]:
    """Run all arms whose name contains `options.only`; return their figures, and those of the pairs."""

    def web() -> Process:
        started = fleet.start("web")
        fleet.wait_ready(started, 1)
        return started

    rows: dict[str, Figures] = {}
    pairs: list[list[Figures]] = []
    wanted = [arm for arm in ("idle", "stalled", "crowd", "pairs", "storm", "cuts") if options.only in arm]
    load = Load(options.streams, options.rate, options.seconds)
    long = b""
    engine = fleet.start("engine", **QUICK)
    if {"stalled", "pairs"} & {*wanted}:
        long = uvloop.run(arms.whole_answer(web(), LONG))
    engine.end()
    engine = fleet.start("engine")
    if "idle" in wanted:
        rows[f"idle: {options.idle} WebSockets"] = uvloop.run(arms.idle_websockets(web(), options.idle))
        rows[f"idle: {options.idle} SSE"] = uvloop.run(arms.idle_streams(web(), engine, options.idle))
    if "stalled" in wanted:
        rows[f"stalled: {STALLED}"] = uvloop.run(arms.stalled_readers(web(), STALLED, long))
    if "crowd" in wanted:
        rows[f"crowd: {load.streams} × {load.rate:g}/s"] = uvloop.run(arms.crowd(web(), load))
    if "pairs" in wanted:
        fewer, one = replace(load, streams=options.paired), web()
        for _ in range(options.rounds):
            stalled = (0, options.paired // 10, 0)
            pairs.append([uvloop.run(arms.crowd(one, fewer, n, long if n else b"")) for n in stalled])
        for name, place in (("alone", 0), ("10 % stalled", 1), ("alone again", 2)):
            rows[f"pairs: {options.paired}, {name}"] = {
                key: median(row[place][key] for row in pairs) for key in ("p50 ms", "p99 ms", "CPU share")
            }
    if "storm" in wanted:
        rows[f"storm: {load.streams} resumes"] = uvloop.run(arms.storm((web(), web()), load))
    if "cuts" in wanted:
        engine.end()
        fleet.start("engine", SCRIPTED_TOKENS_PER_SECOND=str(CUT_RATE))
        rows["cuts: 0 gaps, 0 doubles"] = uvloop.run(cuts((web(), web()), options.cuts))
    return rows, pairs


def ratios(pairs: list[list[Figures]], place: int) -> str:
    """Median and range, over the rounds, of an arm's p99 to that of the first one."""
    found = [row[place]["p99 ms"] / row[0]["p99 ms"] for row in pairs]
    return f"{median(found):.2f} ({min(found):.2f}–{max(found):.2f})"


def main() -> None:
    """Print the table, keep the figures."""
    parser = argparse.ArgumentParser(prog="tests.bench.connections", description=__doc__)
    parser.add_argument("--idle", type=int, default=5000)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--paired", type=int, default=400, help="streams where readers stall")
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=7, help="of pairs")
    parser.add_argument("--cuts", type=int, default=10_000, help="connections to lose")
    parser.add_argument("--only", default="", help="arms whose name contains this")
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard) if soft < hard else (soft, hard))
    settings = {
        "SCRIPTED_TOKENS_PER_SECOND": str(options.rate),
        "CHATSERVER_MAX_RUNNING": str(options.streams),
        "CHATSERVER_QUEUE_BOUND": str(options.streams),
        "CHATSERVER_LOG_LEVEL": "error",
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        running_store() as store,
        Fleet(Path(folder), store.url, **settings) as fleet,
    ):
        rows, pairs = run(fleet, options)
    lines = [[row, *(figures.get(name, "–") for name in NAMES)] for row, figures in rows.items()]
    print(table("connections", ("arm", *NAMES), lines))
    if pairs:
        print("\np99 ÷ p99 alone:", *(f"{name} {ratios(pairs, at)}" for name, at in COMPARED))
    print(f"\nkept in {keep('connections', {'options': vars(options), 'rows': rows, 'pairs': pairs})}")


if __name__ == "__main__":
    main()
