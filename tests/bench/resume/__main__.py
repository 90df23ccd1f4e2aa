"""What one resumption costs: CPU of the web process and of the store, nothing else running.

Answers in progress with some tokens on their tapes, and no engine; a client attaches to each at a position over SSE,
one after the other, reads the rest of what is there, and goes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path
from statistics import median

import uvloop

from chatserver.adapters.valkey import ValkeyStore
from chatserver.domain.ids import SHARDS
from chatserver.domain.response import Response
from chatserver.domain.tape import Delta, Record
from chatserver.ports.tapes import Append
from tests.bench.connections.readers import follow
from tests.bench.relay.processes import cpu_seconds, pin
from tests.bench.report import keep, percentile, table
from tests.chatserver.adapters.things import opening, turn
from tests.fleet import Fleet
from tests.stores import running_store

TENANT = "local"
OPENING = 4
"""The last sequence number before the first token."""
WARM = 0.2
"""Share of the resumptions that are not counted: the process learns its way."""


async def begin(store: ValkeyStore, number: int, tokens: int) -> Response:
    """Begin an answer that has so many tokens, each in a record of its own."""
    shard = number % SHARDS
    await store.turns.begin(turn(shard=shard, tenant=TENANT), queue_bound=10_000)
    (claimed,) = await store.turns.claim("eng-bench", lease=600, shard=shard)
    await store.tapes.commit([opening(claimed)])
    numbers = range(OPENING + 1, OPENING + 1 + tokens)
    records = tuple(Record(n, Delta((f" token{n}",), (n,))) for n in numbers)
    assert (await store.tapes.commit([Append(claimed.id, claimed.claim, records)]))[0].ok
    return claimed


async def resume(port: int, response_id: str, after: int, last: int) -> float:
    """Attach, read up to the last number, go; return how many ms that took."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(follow(response_id.encode(), after))
    async with asyncio.timeout(10):
        while b'"sequence_number":%d' % last not in (line := await reader.readline()):
            assert line, "cut off"
    writer.transport.abort()
    return (time.perf_counter() - began) * 1000


async def measure(url: str, port: int, pids: tuple[int, int], options: argparse.Namespace) -> list[float]:
    """Return the CPU of web and store for one, in µs, and the median time in ms."""
    store = await ValkeyStore.open(url)
    begun = [await begin(store, n, options.tokens) for n in range(options.resumes)]
    last = OPENING + options.tokens
    warm = int(WARM * len(begun))
    before, times = [0.0, 0.0], []
    for n, response in enumerate(begun):
        if n == warm:
            before = [cpu_seconds(pid) for pid in pids]
        times.append(await resume(port, response.id, last - options.behind, last))
    after = [cpu_seconds(pid) for pid in pids]
    await store.close()
    counted = len(begun) - warm
    return [
        *((b - a) / counted * 1e6 for a, b in zip(before, after, strict=True)),
        percentile(times[warm:], 0.5),
    ]


def main() -> None:
    """Print the table, keep the figures."""
    parser = argparse.ArgumentParser(prog="tests.bench.resume", description=__doc__)
    parser.add_argument("--resumes", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=60, help="on each tape")
    parser.add_argument("--behind", type=int, default=30, help="of them are what the client has not got")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    pin(os.getpid(), 1, children=False, niceness=0)
    rounds = []
    for _ in range(options.rounds):
        with (
            tempfile.TemporaryDirectory() as folder,
            running_store() as store,
            Fleet(Path(folder), store.url, CHATSERVER_LOG_LEVEL="error") as fleet,
        ):
            web = fleet.start("web")
            fleet.wait_ready(web, 0)
            pin(web.pid, 0, children=False, niceness=0)
            rounds.append(uvloop.run(measure(store.url, web.port, (web.pid, store.pid), options)))
    names = ("web, µs of CPU", "store, µs of CPU", "ms, one after the other")
    rows = [
        [name, median(v), min(v), max(v)] for name, v in zip(names, zip(*rounds, strict=True), strict=True)
    ]
    title = f"{options.resumes} resumptions {options.behind} tokens behind, {options.rounds} rounds"
    print(table(title, ("one resumption", "median", "min", "max"), rows))
    print(f"\nkept in {keep('resume', {'options': vars(options), 'rounds': rounds})}")


if __name__ == "__main__":
    main()
