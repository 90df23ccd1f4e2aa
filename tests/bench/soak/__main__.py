"""Answers for as long as you like, their readers cut at random: no gap, no double, and memory that does not grow.

Each client asks, follows, is cut, comes back, until the answer is whole, and asks again. Half of them delete the
conversation at once, half some time after the tape is gone by itself, whose time to live is short here. Memory of
every process is taken every few seconds; the slope is a line fitted through what comes after the warm-up: until then
caches fill that have a bound (the names of 2,048 answers), and what is kept for a minute (marks of settled bills) or
half a one (tapes) comes to as much as it will be. Counted are the pages that a process has for itself: how many are
shared depends on who else runs.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections import deque
from pathlib import Path

import httpx
import numpy as np
import psutil
import redis.asyncio

from chatserver.adapters import embedded
from tests.bench.report import keep, table
from tests.e2e.following import Dropped, Follower
from tests.program import Program

ROLES = ("store", "engine", "web")
EVERY = 5.0
"""Seconds between looks at the memory."""
ASK = {"model": "scripted", "temperature": 0, "ignore_eos": True, "background": True}
TEXTS = 8
"""Different questions; the answers to one are the same."""
LEFT = 30.0
"""Seconds for which half of the conversations stay: longer than the tapes."""
SETTINGS = {
    "SCRIPTED_TOKENS_PER_SECOND": "60",
    "CHATSERVER_TAPE_TTL": "20",
    "CHATSERVER_CONTEXT": "512",  # and with it a small cache of the scripted engine, which is full soon
}
Taken = dict[str, list[float]]
"""MiB of each process over time, what the store says that it holds, and the number of its keys."""


class Soak:
    """What all clients share. `cuts`: how many so far."""

    def __init__(self, url: str, tokens: int, cut_every: float, until: float) -> None:
        self.cuts = self.answers = 0
        self._url, self._tokens, self._cut_every, self._until = url, tokens, cut_every, until
        self._texts: dict[str, str] = {}

    async def client(self, *, leave: bool) -> None:
        """Ask and follow until the time is over. Raises AssertionError if a token is missing, doubled or another."""
        left: deque[tuple[float, str]] = deque()
        async with httpx.AsyncClient(base_url=self._url, timeout=30) as http:
            while time.monotonic() < self._until:
                question = f"Question {random.randrange(TEXTS)}"
                ask = {**ASK, "input": question, "max_output_tokens": self._tokens}
                answer = await http.post("/v1/responses", json=ask)
                assert answer.status_code == 200, answer.text
                follower = await Follower(self._url, answer.json()["id"], self._maybe_cut).run()
                assert follower.text == self._texts.setdefault(question, follower.text)
                assert follower.end["usage"]["output_tokens"] == self._tokens
                self.answers += 1
                left.append((time.monotonic() + LEFT * leave, answer.json()["conversation"]["id"]))
                while left and left[0][0] <= time.monotonic():
                    deleted = await http.delete(f"/v1/conversations/{left.popleft()[1]}")
                    assert deleted.status_code == 200, deleted.text

    def _maybe_cut(self, _follower: Follower, _event: object) -> None:
        if random.random() < 1 / self._cut_every:
            self.cuts += 1
            raise Dropped


async def run(program: Program, soak: Soak, clients: int) -> Taken:
    """Run the clients; return what was taken meanwhile."""
    working = asyncio.gather(*(soak.client(leave=n % 2 == 0) for n in range(clients)))
    taken: Taken = {}
    async with redis.asyncio.Redis(
        unix_socket_path=str(embedded.socket_path(program.data_dir)), socket_timeout=10
    ) as store:
        while not working.done():
            pids = {"supervisor": program.process.pid, **{role: program.pid(role) for role in ROLES}}
            for role, pid in pids.items():
                taken.setdefault(role, []).append(psutil.Process(pid).memory_full_info().uss / 2**20)
            kept = (await store.info("memory"))["used_memory"] / 2**20
            taken.setdefault("what the store holds", []).append(kept)
            taken.setdefault("keys in the store", []).append(float(await store.dbsize()))
            await asyncio.wait([working], timeout=EVERY)
    await working
    return taken


def slope(values: list[float], warm: int) -> float:
    """Growth a minute behind the first `warm` values."""
    late = values[warm:]
    return float(np.polyfit(np.arange(len(late)) * EVERY / 60, late, 1)[0]) if len(late) > 2 else 0.0


def main() -> None:
    """Print the table, keep the figures."""
    parser = argparse.ArgumentParser(prog="tests.bench.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--warm", type=float, default=300.0, help="seconds of them that the slope leaves out")
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=120, help="of each answer")
    parser.add_argument("--cut-every", type=float, default=15.0, help="events between two cuts, on average")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        Program(Path(folder) / "data", model="scripted", **SETTINGS) as program,
    ):
        program.wait_ready(60)
        until = time.monotonic() + options.seconds
        soak = Soak(program.url, options.tokens, options.cut_every, until)
        taken = asyncio.run(run(program, soak, options.clients))
    warm = int(options.warm / EVERY)
    rows = [
        [what, v[0], v[min(warm, len(v) - 1)], v[-1], max(v), slope(v, warm)] for what, v in taken.items()
    ]
    title = f"{options.seconds:g} s: {soak.answers} answers, {soak.cuts} cuts, 0 gaps, 0 doubles; MiB"
    print(table(title, ("process", "start", "warm", "end", "most", "a minute, warm"), rows))
    figures = {"options": vars(options), "memory": taken, "cuts": soak.cuts, "answers": soak.answers}
    print(f"\nkept in {keep('soak', figures)}")


if __name__ == "__main__":
    main()
