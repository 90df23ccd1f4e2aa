"""Client-seen minus engine-seen time to first token, scripted engine, whole program on loopback.

    client ── request ──> web ──> store ──> engine ── TTFT ──┐
    client <── first delta ── web <── store <── engine <─────┘      share = client-seen − engine-seen

Both doors are measured in turn, in the same run, quiet (one answer at a time) and with 16 answers at once.
Goal: p50 ≤ 10 ms quiet. Memory is the resident set of each role after the run.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import orjson
import psutil
import websockets
from openai import AsyncOpenAI

from tests.bench.report import keep, percentile, table
from tests.program import Program

ROUNDS = 5
PER_ROUND = 40
TTFT_MS = 20.0
ASK = {"model": "scripted", "input": "How are you today?", "max_output_tokens": 8}


async def over_sse(program: Program, count: int, at_once: int) -> list[float]:
    """Return the server's share in milliseconds for `count` answers over SSE."""
    gate = asyncio.Semaphore(at_once)

    async def one(client: AsyncOpenAI) -> float:
        async with gate:
            started = time.perf_counter()
            first = 0.0
            async for event in await client.responses.create(**ASK, stream=True):
                if event.type == "response.output_text.delta" and not first:
                    first = time.perf_counter()
            return (first - started) * 1000 - event.response.timing["prefill_ms"]

    # Closed at the end: sockets of a forgotten client hang those of the next one.
    async with AsyncOpenAI(base_url=f"{program.url}/v1", api_key="x") as client:
        return await asyncio.gather(*(one(client) for _ in range(count)))


async def over_websocket(program: Program, count: int, at_once: int) -> list[float]:
    """The same over one WebSocket, `at_once` lanes."""
    shares: list[float] = []
    starts: dict[str, float] = {}
    firsts: dict[str, float] = {}
    address = program.url.replace("http", "ws") + "/v1/responses"
    async with websockets.connect(address) as socket:

        async def ask(number: int) -> None:
            starts[f"lane{number}"] = time.perf_counter()
            frame = {"type": "response.create", "stream_id": f"lane{number}", **ASK}
            await socket.send(orjson.dumps(frame).decode())

        for number in range(min(at_once, count)):
            await ask(number)
        asked = min(at_once, count)
        while len(shares) < count:
            event = orjson.loads(await asyncio.wait_for(socket.recv(), 60))
            lane = event["stream_id"]
            if event["type"] == "response.output_text.delta":
                firsts.setdefault(lane, time.perf_counter())
            elif event["type"] in ("response.completed", "response.incomplete"):
                seen = (firsts[lane] - starts[lane]) * 1000
                shares.append(seen - event["response"]["timing"]["prefill_ms"])
                if asked < count:
                    await ask(asked)
                    asked += 1
            elif event["type"] in ("error", "response.failed"):
                raise RuntimeError(event)
    return shares


def resident(pid: int) -> float:
    """Return the resident set of a process and its children in MiB."""
    process = psutil.Process(pid)
    return sum(p.memory_info().rss for p in [process, *process.children(recursive=True)]) / 2**20


async def measure(program: Program) -> dict[str, list[float]]:
    """Run the arms interleaved."""
    arms: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for door, run in (("SSE", over_sse), ("WebSocket", over_websocket)):
            for at_once in (1, 16):
                arms.setdefault(f"{door}, {at_once} at once", []).extend(
                    await run(program, PER_ROUND, at_once)
                )
    return arms


def main() -> None:
    """Print the table, keep the figures."""
    with tempfile.TemporaryDirectory() as folder:
        speed = {"SCRIPTED_TTFT_MS": str(TTFT_MS), "SCRIPTED_TOKENS_PER_SECOND": "200"}
        with Program(Path(folder) / "data", model="scripted", **speed) as program:
            ready = program.wait_ready(60)
            idle = {role: resident(program.pid(role)) for role in ("web", "store", "engine")}
            arms = asyncio.run(measure(program))
            after = {role: resident(program.pid(role)) for role in ("web", "store", "engine")}
    rows = [
        (name, len(v), percentile(v, 0.5), percentile(v, 0.9), percentile(v, 0.99))
        for name, v in arms.items()
    ]
    print(
        table(
            "Server's own share of TTFT, ms (goal: p50 ≤ 10 quiet)", ("door", "n", "p50", "p90", "p99"), rows
        )
    )
    print()
    print(
        table(
            "Resident memory, MiB (goal: web ≤ 120, store ≤ 20 idle)",
            ("role", "idle", "after"),
            [(role, idle[role], after[role]) for role in idle],
        )
    )
    print(
        f"\nready after {ready:.1f} s; kept in {keep('ttft', {'shares_ms': arms, 'idle': idle, 'after': after})}"
    )


if __name__ == "__main__":
    main()
