"""10,000 stored answers: the store grows by what they say; web and engine must not grow by any of it.

The first half fills the caches that have a bound; the second half is what counts.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from itertools import count
from pathlib import Path

import httpx
import numpy as np

from tests.bench.relay.processes import memory
from tests.bench.report import keep, table
from tests.program import Program

ROLES = ("store", "engine", "web")
EVERY = 2.0
"""Seconds between looks at the memory."""
SETTINGS = {
    "SCRIPTED_TOKENS_PER_SECOND": "2000",
    "SCRIPTED_TTFT_MS": "1",
    "CHATSERVER_CONTEXT": "512",  # and with it a small cache of the scripted engine, which is full soon
}
ASK = {"model": "scripted", "max_output_tokens": 20, "ignore_eos": True}


async def run(program: Program, answers: int, clients: int) -> dict[str, list[float]]:
    """Ask; return the numbers of answers, and MiB of each process at each of them."""
    numbers = count(1)
    taken: dict[str, list[float]] = {"answers": [], **{role: [] for role in ROLES}}

    async def client(http: httpx.AsyncClient) -> None:
        while (number := next(numbers)) <= answers:
            answer = await http.post("/v1/responses", json={**ASK, "input": f"Question {number}"})
            assert answer.status_code == 200, answer.text
            assert answer.json()["usage"]["output_tokens"] == ASK["max_output_tokens"]
            done[0] += 1

    done = [0]
    async with httpx.AsyncClient(base_url=program.url, timeout=60) as http:
        working = asyncio.gather(*(client(http) for _ in range(clients)))
        while not working.done():
            taken["answers"].append(float(done[0]))
            for role in ROLES:
                taken[role].append(memory(program.pid(role)) / 2**20)
            await asyncio.wait([working], timeout=EVERY)
        await working
    return taken


def growth(taken: dict[str, list[float]], role: str) -> float:
    """KiB for each answer of the second half."""
    half = taken["answers"][-1] / 2
    late = [(n, m) for n, m in zip(taken["answers"], taken[role], strict=True) if n >= half]
    return float(np.polyfit(*zip(*late, strict=True), 1)[0]) * 1024


def main() -> None:
    """Print the table, keep the figures."""
    parser = argparse.ArgumentParser(prog="tests.bench.stored", description=__doc__)
    parser.add_argument("--answers", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=24)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        Program(Path(folder) / "data", model="scripted", **SETTINGS) as program,
    ):
        program.wait_ready(60)
        began = time.monotonic()
        taken = asyncio.run(run(program, options.answers, options.clients))
        seconds = time.monotonic() - began
    rows = [[role, v[0], v[len(v) // 2], v[-1], growth(taken, role)] for role in ROLES for v in [taken[role]]]
    title = f"{options.answers} stored answers in {seconds:.0f} s; MiB"
    print(table(title, ("process", "start", "half of the time", "end", "KiB an answer, second half"), rows))
    print(f"\nkept in {keep('stored', {'options': vars(options), 'memory': taken, 'seconds': seconds})}")


if __name__ == "__main__":
    main()
