"""What the durable tape costs: CPU of the store and of the writer for one token, nothing else running.

    this process    the engine's side: `TapeWriter` and the adapter, no engine
    a store of its own
    a reader        takes the announcements from its socket and throws them away

One commit a tick has one token for each stream, as a scheduler's step has. `--ends`: so many answers end a second and
as many begin, after which the next commit looks at all tapes of the shard; `--watchers`: web processes that are told.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median

import uvloop

from chatserver.adapters.valkey import ValkeyStore
from chatserver.domain.ids import SHARDS
from chatserver.domain.response import Response
from chatserver.domain.tape import Delta, Record
from chatserver.service.engine.tape_writer import TapeWriter
from tests.bench.relay.processes import cpu_seconds
from tests.bench.report import keep, table
from tests.chatserver.adapters.things import closing, opening, outcome_of, turn
from tests.stores import running_store

WEB = "web-{}"
LEASE = 600.0
DRAIN = """
import socket, sys
one = socket.socket(socket.AF_UNIX)
one.connect(sys.argv[1])
one.sendall(b"SUBSCRIBE chat:web:" + sys.argv[2].encode() + b"\\r\\n")
print("ready", flush=True)
while one.recv(1 << 20):
    pass
"""


class Streams:
    """Answers in progress, each with the number of its last token."""

    def __init__(self, store: ValkeyStore, writer: TapeWriter, webs: Sequence[str]) -> None:
        self._store = store
        self._writer = writer
        self._webs = webs
        self._last: dict[str, int] = {}
        self._open: list[Response] = []
        self._begun = 0

    async def begin(self) -> None:
        """Begin one more, as an engine does."""
        shard = self._begun % SHARDS
        self._begun += 1
        new = turn(shard=shard, watcher=self._webs[0] if self._webs else None)
        await self._store.turns.begin(new, queue_bound=10_000)
        (claimed,) = await self._store.turns.claim("eng-bench", lease=LEASE, shard=shard)
        for web in self._webs[1:]:
            await self._store.tapes.watch([claimed.id], web)
        self._writer.open(claimed.id, claimed.claim, on_stop=lambda: None, on_lost=_lost)
        self._writer.write(claimed.id, *opening(claimed).records)
        self._last[claimed.id] = 4
        self._open.append(claimed)

    async def end(self) -> None:
        """End the oldest."""
        response = self._open.pop(0)
        await self._writer.flush(response.id)
        self._writer.close(response.id)
        outcome = outcome_of(response)
        records = closing(outcome, self._last.pop(response.id) + 1)
        assert await self._store.turns.finish(response, outcome, records, {})

    async def settled(self) -> None:
        """Wait until all that was written is on the tapes."""
        for response in self._open:
            await self._writer.flush(response.id)

    def step(self) -> None:
        """Write a token of each."""
        for response_id, last in self._last.items():
            self._last[response_id] = last + 1
            self._writer.write(response_id, Record(last + 1, Delta((" token",), (last,))))


async def measure(url: str, store_pid: int, options: argparse.Namespace) -> tuple[float, float, float]:
    """Return the CPU of the store, of commits, and of making and queueing the records, µs a token."""
    store = await ValkeyStore.open(url)
    writer = TapeWriter(store.tapes)
    writing = asyncio.create_task(writer.run())
    streams = Streams(store, writer, [WEB.format(n) for n in range(options.watchers)])
    for _ in range(options.streams):
        await streams.begin()
    steps = int(options.rate * options.seconds)
    warm = int(options.rate / 2)
    ends = writing_cpu = 0.0
    for step in range(warm + steps):
        if step == warm:
            before = cpu_seconds(store_pid), time.process_time()
        due = time.perf_counter()
        since = time.process_time()
        streams.step()
        if step >= warm:
            writing_cpu += time.process_time() - since
        await streams.settled()  # else a late step would be merged with the next one, and cheaper
        ends += options.ends / options.rate
        while ends >= 1:
            ends -= 1
            await streams.end()
            await streams.begin()
        await asyncio.sleep(max(0.0, due + 1 / options.rate - time.perf_counter()))
    after = cpu_seconds(store_pid), time.process_time()
    tokens = steps * options.streams
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await store.close()
    parts = (after[0] - before[0], after[1] - before[1] - writing_cpu, writing_cpu)
    return tuple(part / tokens * 1e6 for part in parts)  # type: ignore[return-value]


def _lost() -> None:
    raise AssertionError("the claim was lost")


def main() -> None:
    """Print the table, keep the figures."""
    parser = argparse.ArgumentParser(prog="tests.bench.tape", description=__doc__)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--rate", type=float, default=50.0, help="steps a second")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ends", type=float, default=0.0)
    parser.add_argument("--watchers", type=int, default=1)
    options = parser.parse_args()
    os.sched_setaffinity(0, {1})
    rounds = []
    for _ in range(options.rounds):
        with running_store() as store:  # a new one, so that none has the other's memory
            os.sched_setaffinity(store.pid, {0})
            drains = [
                subprocess.Popen(
                    [sys.executable, "-c", DRAIN, store.url.removeprefix("unix://"), WEB.format(n)],
                    stdout=subprocess.PIPE,
                )
                for n in range(options.watchers)
            ]
            for drain in drains:
                assert drain.stdout is not None and drain.stdout.readline()
            rounds.append(uvloop.run(measure(store.url, store.pid, options)))
        for drain in drains:
            drain.wait(10)
    names = ("store", "commits", "making and queueing the records")
    title = (
        f"{options.streams} streams × {options.rate:g} tokens/s, µs of CPU a token, {options.rounds} rounds"
    )
    parts = list(zip(names, zip(*rounds, strict=True), strict=True))
    print(table(title, ("part", "median", "min", "max"), [[n, median(v), min(v), max(v)] for n, v in parts]))
    print(f"\nkept in {keep('tape', {'options': vars(options), 'rounds': rounds})}")


if __name__ == "__main__":
    main()
