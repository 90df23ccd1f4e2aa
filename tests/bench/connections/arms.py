"""What is measured: each arm on a web process of its own, because memory that was once used is not new."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import httpx
import orjson

from tests.bench.connections.readers import (
    RAMP,
    Stalled,
    follow,
    kernel_memory,
    lateness,
    numbers,
    open_all,
)
from tests.bench.relay import client
from tests.bench.relay.client import SSE, Socket, masked
from tests.bench.relay.processes import cpu_seconds, memory
from tests.bench.report import percentile
from tests.fleet import Process

HANDSHAKE = (
    b"GET /v1/responses HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
QUEUED = 100
"""Answers that idle readers wait for."""
IDLE_RAMP = 400
LOOKS, STEADY = 3, 1.005
"""How often in a row the kernel must keep the same, and what counts as the same."""
ASK = {"model": "scripted", "input": client.PROMPT, "temperature": 0, "ignore_eos": True, "background": True}

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Load:
    """So many streams at so many tokens a second each, measured for so many seconds."""

    streams: int
    rate: float
    seconds: float


async def idle_websockets(web: Process, count: int) -> Figures:
    """Open WebSockets and leave them alone."""
    return await _idle(web, count, lambda n: HANDSHAKE, b" 101 ")


async def idle_streams(web: Process, engine: Process, count: int) -> Figures:
    """Follow answers that wait in the queue over SSE: the engine is stopped."""
    os.kill(engine.pid, signal.SIGSTOP)
    try:
        names = [await begin(web, 8) for _ in range(QUEUED)]
        return await _idle(web, count, lambda n: follow(names[n % QUEUED]), b" 200 ")
    finally:
        os.kill(engine.pid, signal.SIGCONT)


async def begin(web: Process, tokens: int) -> bytes:
    """Begin an answer that nobody needs to read; return its id."""
    async with httpx.AsyncClient(timeout=30) as http:
        answer = await http.post(f"{web.url}/v1/responses", json={**ASK, "max_output_tokens": tokens})
    assert answer.status_code == 200, answer.text
    return answer.json()["id"].encode()


async def whole_answer(web: Process, tokens: int) -> bytes:
    """Begin a long answer, wait for its end; return its id."""
    name = await begin(web, tokens)
    async with httpx.AsyncClient(timeout=30) as http, asyncio.timeout(120):
        while True:
            answer = (await http.get(f"{web.url}/v1/responses/{name.decode()}")).json()
            if answer["status"] not in ("queued", "in_progress"):
                assert answer["usage"]["output_tokens"] == tokens, answer
                return name
            await asyncio.sleep(0.5)


async def stalled_readers(web: Process, count: int, long: bytes) -> Figures:
    """Have readers stall at the beginning of a long answer, until all buffers for them are full.

    The CPU is that of the process with all of them. Of the memory, counted is the second half: what the first reads
    of all cost for a moment is the heap's from then on. All of it before the first are sent away, after 30 s.
    """
    stuck = await stall(web, count // 2, follow(long), long)
    await filled(web)
    before, kernel = memory(web.pid), kernel_memory(web.port)
    stuck += await stall(web, count // 2, follow(long), long)
    await filled(web)
    figures = {
        "KiB each": (memory(web.pid) - before) / (count // 2) / 1024,
        "kernel KiB each": (kernel_memory(web.port) - kernel) / (count // 2) / 1024,
    }
    cpu, since = cpu_seconds(web.pid), time.perf_counter()
    await asyncio.sleep(3)
    figures["CPU share"] = (cpu_seconds(web.pid) - cpu) / (time.perf_counter() - since)
    assert not any(one.ended.done() for one in stuck), "some were sent away before they were counted"
    for one in stuck:
        one.close()
    return figures


async def filled(web: Process, *, every: float = 1.0) -> None:
    """Wait until the kernel keeps as much for those who do not read as it will; a busy machine takes its time."""
    looks = [0.0]
    async with asyncio.timeout(60):
        while len(looks) < LOOKS or max(looks[-LOOKS:]) > STEADY * min(looks[-LOOKS:]):
            await asyncio.sleep(every)
            looks.append(float(kernel_memory(web.port)))


async def stall(web: Process, count: int, request: bytes, long: bytes) -> list[Socket]:
    """Open readers that stall: half over SSE after `request`, half over WebSocket in the answer `long`."""
    attach = masked(orjson.dumps({"type": "response.attach", "response_id": long.decode()}))
    over_sse, over_websocket = (request, b""), (HANDSHAKE, attach)
    stuck = await open_all(lambda: Stalled(over_sse, 1), count - count // 2, web.port, narrow=True)
    return stuck + await open_all(lambda: Stalled(over_websocket, 2), count // 2, web.port, narrow=True)


async def crowd(web: Process, load: Load) -> Figures:
    """Run streams to their end; return how late their tokens were, and what each takes."""
    tokens = int(load.rate * (load.streams / RAMP + load.seconds + 4))
    before = memory(web.pid)
    opened = await open_all(lambda: Socket(SSE.request(web.port, tokens), SSE.ends), load.streams, web.port)
    await asyncio.sleep(1)
    cpu, since = cpu_seconds(web.pid), time.perf_counter()
    await asyncio.sleep(load.seconds)
    until = time.perf_counter()
    share = (cpu_seconds(web.pid) - cpu) / (until - since)
    each = (memory(web.pid) - before) / load.streams / 1024
    async with asyncio.timeout(client.READ_WITHIN):
        await asyncio.gather(*(one.ended for one in opened))
    late = []
    for one in opened:
        read = client.parse(SSE, one.arrivals)
        assert read.tokens == tokens, (read.tokens, tokens)
        late += lateness(read, load.rate, since, until)
    return {
        "p50 ms": median(late),
        "p99 ms": percentile(late, 0.99),
        "CPU share": share,
        "KiB each": each,
    }


async def storm(webs: Sequence[Process], load: Load) -> Figures:
    """Cut all readers of the first process; let them come back to the second at once."""
    # on a busy machine it takes a while until all have begun
    tokens = int(load.rate * (load.streams / RAMP + 25))
    opened = await open_all(
        lambda: Socket(SSE.request(webs[0].port, tokens), SSE.ends), load.streams, webs[0].port
    )
    async with asyncio.timeout(30):
        while not all(numbers(one) for one in opened):
            await asyncio.sleep(0.5)
    for one in opened:
        one.ended.cancel()
        assert one.transport is not None
        one.transport.abort()
    began = time.perf_counter()
    back = await open_all(iter(map(_comes_back, opened)).__next__, load.streams, webs[1].port, ramp=0)
    async with asyncio.timeout(60):
        await asyncio.gather(*(one.ended for one in back))
    first = [one.arrivals[0][0] - began for one in back]
    for old, new in zip(opened, back, strict=True):
        check_whole(old, new, tokens)
    return {
        "p50 ms": median(first) * 1000,
        "p99 ms": percentile(first, 0.99) * 1000,
        "last ms": max(first) * 1000,
    }


def _comes_back(one: Socket) -> Socket:
    """Return a reader that goes on where another one was cut."""
    seen = b"".join(data for _, data in one.arrivals)
    response_id = seen.partition(b'"response":{"id":"')[2].partition(b'"')[0]
    return Socket((follow(response_id, numbers(one)[-1]), b""), SSE.ends)


def check_whole(old: Socket, new: Socket, tokens: int) -> None:
    """Both parts together have every number once: 5 events before the tokens, 4 after them."""
    both = numbers(old) + numbers(new)
    assert both == sorted(set(both)), "a number came twice"
    assert both[-1] == tokens + 8, (both[-1], tokens)


async def _idle(web: Process, count: int, request: Callable[[int], bytes], accepted: bytes) -> Figures:
    before, kernel = memory(web.pid), kernel_memory(web.port)
    asks = iter(map(request, range(count)))
    opened = await open_all(lambda: Socket((next(asks), b""), b"never"), count, web.port, ramp=IDLE_RAMP)
    async with asyncio.timeout(60):
        while not all(one.arrivals for one in opened):
            await asyncio.sleep(0.1)
    assert all(accepted in one.arrivals[0][1] for one in opened)
    cpu = cpu_seconds(web.pid)
    await asyncio.sleep(5)
    figures = {
        "KiB each": (memory(web.pid) - before) / count / 1024,
        "kernel KiB each": (kernel_memory(web.port) - kernel) / count / 1024,
        "CPU share": (cpu_seconds(web.pid) - cpu) / 5,
    }
    for one in opened:
        one.close()
    return figures
