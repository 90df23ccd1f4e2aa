"""Faults of live schedulers, in a process of its own, because SGLang takes one over: used by `test_faults`.

    python -m tests.engine.faults FOLDER RANKS SCENARIO...

It prints a JSON line for each thing that happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path

import psutil

from engine.contract import EngineError, FinishReason, GenerateRequest, Sampling
from engine.launch_errors import explained
from engine.launch_record import recorded
from engine.ranks import Ranks, fork
from engine.settings import EngineSettings
from engine.sglang_engine import SglangEngine


def say(**what: object) -> None:
    """Print what happened."""
    print(json.dumps(what), flush=True)


def ranks() -> list[psutil.Process]:
    """Return the scheduler processes that live."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it may end meanwhile
            forked = re.search(r"tests\.engine\.faults|sglang::scheduler", " ".join(child.cmdline()))
            if forked and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
    return found


async def tokens(engine: SglangEngine, name: str, count: int, then=None) -> None:
    """Generate `count` tokens, call `then` after the fifth, say how it ended and how long that took."""
    tokenizer = engine.tokenizer
    ids = (*tokenizer.head(None), *tokenizer.segment("user", "Hi"), *tokenizer.cue())
    sampling = Sampling(max_tokens=count, temperature=0.0, ignore_end=True)
    made, since = 0, time.monotonic()
    try:
        async for chunk in engine.generate(GenerateRequest(uuid.uuid4().hex, ids, sampling)):
            made += len(chunk.ids)
            if then is not None and made >= 5:
                then()
                then, since = None, time.monotonic()
    except EngineError as error:
        say(name=name, error=type(error).__name__, text=str(error), seconds=time.monotonic() - since)
    else:
        say(name=name, tokens=made)


async def dies(engine: SglangEngine) -> None:
    """A rank that is not the first is killed in the middle of an answer."""
    await tokens(engine, "dies", 900, lambda: ranks()[-1].send_signal(signal.SIGKILL))


async def stops(engine: SglangEngine) -> None:
    """All ranks are stopped in the middle of an answer: nothing fails, nothing is said any more."""
    await tokens(engine, "stops", 900, lambda: [rank.send_signal(signal.SIGSTOP) for rank in ranks()])


async def pauses(engine: SglangEngine) -> None:
    """The ranks are stopped for a moment that is not too long: the answer goes on."""

    def pause() -> None:
        stopped = ranks()
        for rank in stopped:
            rank.send_signal(signal.SIGSTOP)
        asyncio.get_running_loop().call_later(
            0.5, lambda: [rank.send_signal(signal.SIGCONT) for rank in stopped]
        )

    await tokens(engine, "pauses", 40, pause)


async def stalls(engine: SglangEngine) -> None:
    """One request is forgotten by the schedulers; the others go on."""
    assert engine._runtime is not None
    manager, send = engine._runtime.manager, engine._runtime.manager._dispatch_to_scheduler
    forgotten: list[str] = []
    manager._dispatch_to_scheduler = lambda message: forgotten.append(type(message).__name__)
    lost = asyncio.create_task(tokens(engine, "lost", 20))
    async with asyncio.timeout(60):
        while "TokenizedGenerateReqInput" not in forgotten:
            await asyncio.sleep(0.01)
    manager._dispatch_to_scheduler = send
    await tokens(engine, "stalls", 20)
    await lost


async def aborts(engine: SglangEngine) -> None:
    """Four times 250 requests are in flight, some with a token, some in the queue, and all are aborted at once.

    `at_once`: how many aborts, from the first one asked for to the last request's end, take as long as one request for
    one token; in the best of the four.
    """
    ids = (*engine.tokenizer.head(None), *engine.tokenizer.segment("user", "Hi"), *engine.tokenizer.cue())
    sampling = Sampling(max_tokens=500, temperature=0.0, ignore_end=True)
    one = replace(sampling, max_tokens=1)
    alone, together = [], []
    for _ in range(4):
        began = time.monotonic()
        await drain(engine, GenerateRequest(uuid.uuid4().hex, ids, one))
        alone.append(time.monotonic() - began)
        requests = [GenerateRequest(uuid.uuid4().hex, ids, sampling) for _ in range(250)]
        tasks = [asyncio.create_task(drain(engine, request)) for request in requests]
        while (health := await engine.health()).queued < 150:
            assert not health.lost
            await asyncio.sleep(0.01)
        began = time.monotonic()
        for request in requests:
            await engine.abort(request.request_id)
        assert not [end for end in await asyncio.gather(*tasks) if end is not FinishReason.ABORT]
        together.append((time.monotonic() - began) / len(requests))
    await tokens(engine, "after aborts", 20)
    say(
        name="aborts",
        at_once=min(alone) / min(together),
        running=(await engine.health()).running,
        **await whole(engine),
    )


async def drain(engine: SglangEngine, request: GenerateRequest) -> FinishReason | None:
    """Take all that a request brings; return how it ended."""
    finish = None
    async for chunk in engine.generate(request):
        finish = chunk.finish
    return finish


async def whole(engine: SglangEngine) -> dict[str, object]:
    """Count the KV pool once nothing runs any more."""
    assert engine._runtime is not None
    for _ in range(100):
        if (pool := await engine._runtime.pool(5.0)) is not None:
            return {"leaked": pool.leaked, "whole": pool.free + pool.cached == pool.total}
        await asyncio.sleep(0.05)
    return {"leaked": None, "whole": False}


SCENARIOS = {"dies": dies, "stops": stops, "pauses": pauses, "aborts": aborts, "stalls": stalls}


async def main(settings: EngineSettings, forked: Ranks | None, names: list[str]) -> None:
    """Start an engine, run the scenarios, close it."""
    engine = SglangEngine(settings, forked)

    def begun(phase: str) -> None:
        if names == ["at-start"] and phase.startswith("loading"):
            asyncio.get_running_loop().call_later(0.5, ranks()[-1].kill)

    try:
        with recorded() as said:
            await engine.start(begun)
    except EngineError as error:
        say(name="start", error=type(error).__name__, text=str(explained(error, said())))
    else:
        for name in names:
            await SCENARIOS[name](engine)
        health = await engine.health()
        say(name="health", ok=health.ok, lost=health.lost, text=health.detail, leaked=health.kv_leaked)
        await tokens(engine, "afterwards", 1)
    await engine.close()
    for _ in range(200):  # what is killed takes a moment to end
        if not ranks():
            break
        await asyncio.sleep(0.05)
    say(name="closed", left=len(ranks()))


if __name__ == "__main__":
    tp = int(sys.argv[2])
    chosen = EngineSettings(
        Path(sys.argv[1]), "tiny", kv_tokens=2048, context=1024, tp=tp, ep=tp, silence=5.0
    )
    asyncio.run(main(chosen, fork(chosen), sys.argv[3:]))
