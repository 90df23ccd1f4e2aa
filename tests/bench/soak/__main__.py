"""Answers for as long as you like, their readers cut at random: no gap, no double, and memory that does not grow.

Each client asks, follows, is cut, comes back, until the answer is whole; then it deletes it and asks again. Memory
of store, engine and web is taken every few seconds; the slope is a line fitted through the second half, when
everything is warm.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np

from tests.bench.relay.processes import memory
from tests.bench.report import keep, table
from tests.e2e.following import Dropped, Follower
from tests.program import Program

ROLES = ("store", "engine", "web")
EVERY = 5.0
"""Seconds between looks at the memory."""
ASK = {"model": "scripted", "temperature": 0, "ignore_eos": True, "background": True}
TEXTS = 8
"""Different questions; the answers to one are the same."""


class Soak:
    """What all clients share. `cuts`: how many so far."""

    def __init__(self, url: str, tokens: int, cut_every: float, until: float) -> None:
        self.cuts = self.answers = 0
        self._url, self._tokens, self._cut_every, self._until = url, tokens, cut_every, until
        self._texts: dict[str, str] = {}

    async def client(self) -> None:
        """Ask and follow until the time is over. Raises AssertionError if a token is missing, doubled or another."""
        async with httpx.AsyncClient(timeout=30) as http:
            while time.monotonic() < self._until:
                question = f"Question {random.randrange(TEXTS)}"
                ask = {**ASK, "input": question, "max_output_tokens": self._tokens}
                answer = await http.post(f"{self._url}/v1/responses", json=ask)
                assert answer.status_code == 200, answer.text
                follower = await Follower(self._url, answer.json()["id"], self._maybe_cut).run()
                assert follower.text == self._texts.setdefault(question, follower.text)
                assert follower.end["usage"]["output_tokens"] == self._tokens
                deleted = await http.delete(f"{self._url}/v1/responses/{answer.json()['id']}")
                assert deleted.status_code == 200, deleted.text
                self.answers += 1

    def _maybe_cut(self, _follower: Follower, _event: object) -> None:
        if random.random() < 1 / self._cut_every:
            self.cuts += 1
            raise Dropped


async def run(program: Program, soak: Soak, clients: int) -> dict[str, list[float]]:
    """Run the clients; return MiB of each role over time."""
    working = asyncio.gather(*(soak.client() for _ in range(clients)))
    taken: dict[str, list[float]] = {role: [] for role in ROLES}
    while not working.done():
        for role in ROLES:
            taken[role].append(memory(program.pid(role)) / 2**20)
        await asyncio.wait([working], timeout=EVERY)
    await working
    return taken


def slope(values: list[float]) -> float:
    """MiB a minute over the second half."""
    late = values[len(values) // 2 :]
    return float(np.polyfit(np.arange(len(late)) * EVERY / 60, late, 1)[0]) if len(late) > 2 else 0.0


def main() -> None:
    """Print the table, keep the figures."""
    parser = argparse.ArgumentParser(prog="tests.bench.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=120, help="of each answer")
    parser.add_argument("--cut-every", type=float, default=15.0, help="events between two cuts, on average")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        Program(Path(folder) / "data", model="scripted", SCRIPTED_TOKENS_PER_SECOND="60") as program,
    ):
        program.wait_ready(60)
        until = time.monotonic() + options.seconds
        soak = Soak(program.url, options.tokens, options.cut_every, until)
        taken = asyncio.run(run(program, soak, options.clients))
    rows = [[role, v[0], v[len(v) // 2], v[-1], max(v), slope(v)] for role, v in taken.items()]
    title = f"{options.seconds:g} s: {soak.answers} answers, {soak.cuts} cuts, 0 gaps, 0 doubles; MiB"
    print(table(title, ("process", "start", "middle", "end", "most", "a minute"), rows))
    figures = {"options": vars(options), "memory": taken, "cuts": soak.cuts, "answers": soak.answers}
    print(f"\nkept in {keep('soak', figures)}")


if __name__ == "__main__":
    main()
