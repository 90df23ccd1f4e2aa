"""What a reader sees of a fault in mid-answer: when it is told, and when the answer goes on.

    python -m tests.bench.windows [--rounds N] [--real]

`told`: from the fault to the event that says that the engine is gone (-: nobody needs to know); `token`: from
the fault to the end of the longest silence after it. The client comes back 50 ms after its connection has
ended. 100 tokens a second come from the scripted engine; with `--real`, the faults of a supervised program
strike SGLang with the small model. An answer that is not whole fails the bench.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
from redis.crc import key_slot

from chatserver.adapters.valkey import keys
from chatserver.domain.ids import shard_of
from tests.bench.report import keep, percentile, table
from tests.clusters import running_cluster
from tests.e2e.following import Follower
from tests.fleet import Fleet
from tests.program import Program

AFTER = 40
"""Tokens before the fault."""
REAL = "smollm2-135m-instruct"
SPEED = {"SCRIPTED_TOKENS_PER_SECOND": "100", "CHATSERVER_LOG_LEVEL": "error"}

Strike = Callable[[str], object]
"""Does the fault; takes the id of the answer."""
Figures = dict[str, tuple[float, float]]
"""told, token in seconds, by fault."""


async def _through(
    url: str | Callable[[], str], model: str, tokens: int, strike: Strike
) -> tuple[float, float]:
    """Read an answer through a fault; return `told` (NaN: nobody said anything) and `token`."""
    where = url if callable(url) else lambda: url
    body = {"model": model, "input": "Tell me of tides.", "max_output_tokens": tokens, "temperature": 0}
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.post(
            f"{where()}/v1/responses", json={**body, "ignore_eos": True, "background": True}
        )
    response_id = answer.raise_for_status().json()["id"]
    times: list[float] = []
    struck = math.inf

    def on_event(follower: Follower, event: dict[str, Any]) -> None:
        nonlocal struck
        if struck == math.inf and follower.tokens >= AFTER:
            strike(response_id)
            struck = time.monotonic()
            times.append(struck)
        elif struck < math.inf and event["type"] == "response.output_text.delta":
            times.append(time.monotonic())

    follower = await Follower(where, response_id, on_event).run()
    assert follower.tokens == tokens == follower.end["usage"]["output_tokens"], follower.end
    silence = max(itertools.pairwise(times), key=lambda pair: pair[1] - pair[0])
    return (follower.interrupted_at or math.nan) - struck, silence[1] - struck


async def _supervised(folder: Path, model: str) -> AsyncIterator[tuple[str, tuple[float, float]]]:
    """Faults of one program under its supervisor, which starts again what died."""
    tokens = 300 if model != REAL else 200
    with Program(folder / "data", model=model, **SPEED) as program:
        program.wait_ready()
        faults: dict[str, Strike] = {
            f"{role} killed": lambda _, role=role: program.kill(role) for role in ("web", "store", "engine")
        }
        if model == REAL:
            faults["scheduler killed"] = lambda _: program.schedulers()[0].kill()
        for name, strike in faults.items():
            yield name, await _through(program.url, model, tokens, strike)
            await asyncio.to_thread(program.wait_ready)


async def _several(folder: Path) -> AsyncIterator[tuple[str, tuple[float, float]]]:
    """Faults of a fleet on a cluster, where nothing is started again: others take over."""
    with running_cluster(replicas=True) as cluster, Fleet(folder, cluster.url, **SPEED) as fleet:
        webs, engines = [fleet.start("web") for _ in range(2)], [fleet.start("engine") for _ in range(2)]
        for web in webs:
            await asyncio.to_thread(fleet.wait_ready, web, 2)

        def fail_over(response_id: str) -> None:
            cluster.kill_holder(key_slot(keys.tag(shard_of(response_id) or 0).encode()))

        yield (
            "one of two webs killed",
            await _through(lambda: webs[0].url, "scripted", 300, lambda _: webs.pop(0).kill()),
        )
        for _ in range(8):  # either engine may have the answer
            seen = await _through(webs[0].url, "scripted", 300, lambda _: engines.pop(0).kill())
            engines.append(fleet.start("engine"))
            await asyncio.to_thread(fleet.wait_ready, webs[0], 2)
            if not math.isnan(seen[0]):
                yield "one of two engines killed", seen
                break
        yield "primary of the cluster killed", await _through(webs[0].url, "scripted", 900, fail_over)


async def _round(real: bool) -> Figures:
    with tempfile.TemporaryDirectory(prefix="bench-windows-") as folder:
        seen = {
            name: figures async for name, figures in _supervised(Path(folder), REAL if real else "scripted")
        }
        return seen if real else seen | {name: figures async for name, figures in _several(Path(folder))}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="tests.bench.windows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--real", action="store_true")
    options = parser.parse_args()
    rounds = []
    for number in range(options.rounds):
        rounds.append(asyncio.run(_round(options.real)))
        print(f"round {number + 1} of {options.rounds} done", flush=True)
    rows = []
    for name in rounds[0]:
        told, token = zip(*(one[name] for one in rounds if name in one), strict=True)
        shown = ("-", "-") if math.isnan(told[0]) else (percentile(told, 0.5), max(told))
        rows.append((name, *shown, percentile(token, 0.5), max(token)))
    header = ("seconds after the fault", "told, median", "most", "token, median", "most")
    print(table(f"{options.rounds} rounds", header, rows))
    print(keep("windows", {"rounds": rounds, "real": options.real}))


if __name__ == "__main__":
    main()
