"""What connections cost and do to each other, on two web processes and one engine.

    idle      WebSockets that ask for nothing: memory of the web process, each
    crowd     many slow streams: how late tokens come
    stalled   the same with 10 % readers that stop reading: the others' lateness, memory for each stalled one
    storm     all readers of one web process come back to the other at once: until the last one has the rest

Every stream must bring every token once and in order.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import tempfile
import time
from pathlib import Path
from statistics import median

import httpx
import orjson
import uvloop

from tests.bench.relay import client
from tests.bench.relay.client import SSE, Socket
from tests.bench.relay.processes import cpu_seconds, memory
from tests.bench.report import keep, percentile, table
from tests.fleet import Fleet, Process
from tests.stores import running_store

RAMP = 200
"""New connections a second."""
HANDSHAKE = (
    b"GET /v1/responses HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Stalled(Socket):
    """Reads its first bytes, then nothing more."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        assert self._transport is not None
        self._transport.pause_reading()


async def open_all(make, count: int, port: int) -> list[Socket]:
    """Open connections, RAMP a second, from several source addresses: ports are few."""
    loop = asyncio.get_running_loop()
    opened = []
    for n in range(count):
        source = (f"127.0.0.{2 + n // 10_000}", 0)
        _, one = await loop.create_connection(make, "127.0.0.1", port, local_addr=source)
        opened.append(one)
        await asyncio.sleep(1 / RAMP)
    return opened


async def idle(web: Process, count: int) -> dict[str, float]:
    """Open WebSockets and leave them alone."""
    before = memory(web.pid)
    opened = await open_all(lambda: Socket((HANDSHAKE, b""), b"never"), count, web.port)
    async with asyncio.timeout(30):
        while not all(one.arrivals for one in opened):
            await asyncio.sleep(0.1)
    assert all(b" 101 " in one.arrivals[0][1] for one in opened)
    cpu = cpu_seconds(web.pid)
    await asyncio.sleep(5)
    figures = {
        "KiB each": (memory(web.pid) - before) / count / 1024,
        "CPU share": (cpu_seconds(web.pid) - cpu) / 5,
    }
    for one in opened:
        one.close()
    await asyncio.sleep(2)
    return figures


async def crowd(web: Process, streams: int, rate: float, seconds: float, stalled: int) -> dict[str, float]:
    """Run streams to their end, some readers stalled; return how late the others' tokens were."""
    tokens = int(rate * (streams / RAMP + seconds))
    before, kernel = memory(web.pid), kernel_pages()
    stuck = await open_all(lambda: Stalled(SSE.request(web.port, tokens), b"never"), stalled, web.port)
    opened = await open_all(
        lambda: Socket(SSE.request(web.port, tokens), SSE.ends), streams - stalled, web.port
    )
    cpu, started = cpu_seconds(web.pid), time.perf_counter()
    await asyncio.sleep(seconds)
    figures = {
        "CPU share": (cpu_seconds(web.pid) - cpu) / (time.perf_counter() - started),
        "KiB each": (memory(web.pid) - before) / streams / 1024,
        "kernel KiB a stalled one": (kernel_pages() - kernel) * 4 / stalled if stalled else 0.0,
    }
    async with asyncio.timeout(client.READ_WITHIN):
        await asyncio.gather(*(one.ended for one in opened))
    late = []
    for one in opened:
        read = client.parse(SSE, one.arrivals)
        assert read.tokens == tokens, (read.tokens, tokens)
        late += lateness(read, rate)
    for one in stuck:
        one.close()
    return {"p50 ms": median(late), "p99 ms": percentile(late, 0.99), **figures}


async def storm(webs: list[Process], streams: int, rate: float) -> dict[str, float]:
    """Cut all readers of the first process; let them come back to the second at once."""
    tokens = int(rate * (streams / RAMP + 12))
    opened = await open_all(
        lambda: Socket(SSE.request(webs[0].port, tokens), SSE.ends), streams, webs[0].port
    )
    async with asyncio.timeout(30):
        while not all(numbers(one) for one in opened):
            await asyncio.sleep(0.5)
    began = time.perf_counter()
    loop = asyncio.get_running_loop()
    back, first = [], []
    for one in opened:
        assert one._transport is not None
        one.ended.cancel()
        one._transport.abort()
        ask = resumption(one)
        back.append(
            await loop.create_connection(
                lambda ask=ask: Socket((ask, b""), SSE.ends), "127.0.0.1", webs[1].port
            )
        )
    async with asyncio.timeout(60):
        for _, one in back:
            while not any(b"\nid: " in data for _, data in one.arrivals) and not one.ended.done():
                await asyncio.sleep(0.01)
            first.append(one.arrivals[0][0] - began)
        await asyncio.gather(*(one.ended for _, one in back))
    for old, (_, new) in zip(opened, back, strict=True):
        check_whole(old, new, tokens)
    return {"p50 ms": median(first) * 1000, "p99 ms": percentile(first, 0.99) * 1000}


def resumption(one: Socket) -> bytes:
    """What a reader that was cut asks for."""
    seen = b"".join(data for _, data in one.arrivals)
    response_id = seen.partition(b'"response":{"id":"')[2].partition(b'"')[0]
    return b"GET /v1/responses/%b?stream=true&starting_after=%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % (
        response_id,
        numbers(one)[-1],
    )


def numbers(one: Socket) -> list[int]:
    """The sequence numbers of the whole events that came."""
    events = (orjson.loads(data) for _, data in client.sse_events(one.arrivals))
    return [event["sequence_number"] for event in events]


def check_whole(old: Socket, new: Socket, tokens: int) -> None:
    """Both parts together have every number once: 5 events before the tokens, 4 after them."""
    both = numbers(old) + numbers(new)
    assert both == sorted(set(both)), "a number came twice"
    assert both[-1] == tokens + 8, (both[-1], tokens)


def lateness(read: client.Stream, rate: float) -> list[float]:
    """How many ms each delta came behind the stream's own earliest schedule."""
    numbered, number = [], 0
    for at, _, count in read.pieces:
        number += count
        numbered.append(at - number / rate)
    start = min(numbered)
    return [(moment - start) * 1000 for moment in numbered]


def kernel_pages() -> int:
    """Pages that the kernel's TCP buffers take, of this machine as a whole."""
    line = next(x for x in Path("/proc/net/sockstat").read_text().splitlines() if x.startswith("TCP:"))
    return int(line.split()[-1])


def main() -> None:
    """Print the table, keep the figures."""
    parser = argparse.ArgumentParser(prog="tests.bench.connections", description=__doc__)
    parser.add_argument("--idle", type=int, default=5000)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard) if soft < hard else (soft, hard))
    settings = {
        "SCRIPTED_TOKENS_PER_SECOND": str(options.rate),
        "CHATSERVER_MAX_RUNNING": str(options.streams),
        "CHATSERVER_QUEUE_BOUND": str(options.streams),
        "CHATSERVER_LOG_LEVEL": "error",
    }
    rows: dict[str, dict[str, float]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        running_store() as store,
        Fleet(Path(folder), store.url, **settings) as fleet,
    ):
        webs = [fleet.start("web") for _ in range(2)]
        fleet.start("engine")
        for web in webs:
            fleet.wait_ready(web, 1)
        httpx.get(f"{webs[0].url}/livez").raise_for_status()
        streams, rate = options.streams, options.rate
        rows[f"idle: {options.idle} WebSockets"] = uvloop.run(idle(webs[0], options.idle))
        rows[f"crowd: {streams} × {rate:g}/s"] = uvloop.run(crowd(webs[0], streams, rate, options.seconds, 0))
        rows["stalled: 10 % of them"] = uvloop.run(
            crowd(webs[0], streams, rate, options.seconds, streams // 10)
        )
        print(rows, flush=True)  # the storm may fail, and then they were measured all the same
        rows[f"storm: {streams} resumes"] = uvloop.run(storm(webs, streams, rate))
    names = ("p50 ms", "p99 ms", "CPU share", "KiB each", "kernel KiB a stalled one")
    lines = [[row, *(figures.get(name, "–") for name in names)] for row, figures in rows.items()]
    print(table("connections", ("arm", *names), lines))
    print(f"\nkept in {keep('connections', {'options': vars(options), 'rows': rows})}")


if __name__ == "__main__":
    main()
