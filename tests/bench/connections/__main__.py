"""What connections cost and do to each other: several web processes, one engine, one store.

    idle      WebSockets that ask for nothing; SSE readers of answers that wait in the queue: memory of each
    stalled   readers that stop reading in a long answer: memory of each once all buffers are full
    crowd     many slow streams: how late tokens come
    blocks    fewer streams, and short blocks without and with 10 % stalled readers: what these do to the others
    storm     all readers of one web process come back to another at once: until each has the first of the rest
    cuts      readers that lose their connection again and again, on both doors and two processes: until each has more

Every stream must bring every token once and in order.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from pathlib import Path
from statistics import median

import uvloop

from tests.bench.connections import arms
from tests.bench.connections.arms import Figures, Load
from tests.bench.connections.blocks import AGAIN, ALONE, STALLED, blocks, to_alone
from tests.bench.connections.cuts import cuts
from tests.bench.report import keep, table
from tests.fleet import Fleet, Process
from tests.stores import running_store

NAMES = ("cuts", "p50 ms", "p99 ms", "last ms", "CPU share", "KiB each", "kernel KiB each")
LONG = 60_000
"""Tokens of the answer that readers stall in: several times what may be kept for one of them."""
QUICK = {"SCRIPTED_TOKENS_PER_SECOND": "5000", "CHATSERVER_CONTEXT": "65536"}
STUCK = 400
BLOCK_RATE = 20
"""Tokens a second of each stream of the blocks."""
CUT_RATE = 20
"""Tokens a second of each answer whose readers are cut."""


Rows = list[dict[str, Figures]]
"""Of the blocks, see there."""


def run(fleet: Fleet, options: argparse.Namespace) -> tuple[dict[str, Figures], Rows]:
    """Run all arms whose name contains `options.only`; return their figures, and those of the blocks."""

    def web() -> Process:
        started = fleet.start("web")
        fleet.wait_ready(started, 1)
        return started

    rows: dict[str, Figures] = {}
    compared: Rows = []
    wanted = [arm for arm in ("idle", "stalled", "crowd", "blocks", "storm", "cuts") if options.only in arm]
    load = Load(options.streams, options.rate, options.seconds)
    long = b""
    engine = fleet.start("engine", **QUICK)
    if {"stalled", "blocks"} & {*wanted}:
        long = uvloop.run(arms.whole_answer(web(), LONG))
    engine.end()
    engine = fleet.start("engine")
    if "idle" in wanted:
        rows[f"idle: {options.idle} WebSockets"] = uvloop.run(arms.idle_websockets(web(), options.idle))
        rows[f"idle: {options.idle} SSE"] = uvloop.run(arms.idle_streams(web(), engine, options.idle))
    if "stalled" in wanted:
        rows[f"stalled: {STUCK}"] = uvloop.run(arms.stalled_readers(web(), STUCK, long))
    if "crowd" in wanted:
        rows[f"crowd: {load.streams} × {load.rate:g}/s"] = uvloop.run(arms.crowd(web(), load))
    if "blocks" in wanted:
        engine.end()
        engine = fleet.start("engine", SCRIPTED_TOKENS_PER_SECOND=str(BLOCK_RATE))
        fewer = Load(options.paired, BLOCK_RATE, options.block)
        compared = uvloop.run(blocks(web(), fewer, options.rounds, long))
        for name in (ALONE, STALLED, AGAIN):
            rows[f"blocks: {options.paired} × {BLOCK_RATE}/s, {name}"] = {
                key: median(row[name][key] for row in compared) for key in compared[0][name]
            }
        engine.end()
        engine = fleet.start("engine")
    if "storm" in wanted:
        rows[f"storm: {load.streams} resumes"] = uvloop.run(arms.storm((web(), web()), load))
    if "cuts" in wanted:
        engine.end()
        fleet.start("engine", SCRIPTED_TOKENS_PER_SECOND=str(CUT_RATE))
        rows["cuts: 0 gaps, 0 doubles"] = uvloop.run(cuts((web(), web()), options.cuts))
    return rows, compared


def told(rows: Rows, figure: str) -> str:
    """A figure of the blocks to that of the one without stalled readers."""
    found = [(name, *to_alone(rows, name, figure)) for name in (STALLED, AGAIN)]
    return ", ".join(f"{name} {middle:.3f} ({low:.3f}–{high:.3f})" for name, middle, low, high in found)


def main() -> None:
    """Print the table, keep the figures."""
    parser = argparse.ArgumentParser(prog="tests.bench.connections", description=__doc__)
    parser.add_argument("--idle", type=int, default=5000)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--paired", type=int, default=400, help="streams of the blocks")
    parser.add_argument("--block", type=float, default=2.0, help="seconds that are measured of each")
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=16, help="rows of three blocks")
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
        rows, compared = run(fleet, options)
    lines = [[row, *(figures.get(name, "–") for name in NAMES)] for row, figures in rows.items()]
    print(table("connections", ("arm", *NAMES), lines))
    for figure in ("p50 ms", "p99 ms", "CPU share") if compared else ():
        print(
            f"\n{figure} ÷ alone, median and 95 % interval of {len(compared)} rows: {told(compared, figure)}"
        )
    print(f"\nkept in {keep('connections', {'options': vars(options), 'rows': rows, 'blocks': compared})}")


if __name__ == "__main__":
    main()
