"""The real engine in a process of its own, which answers lists of requests; its JSON lines are described in `main`."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Served:
    """An engine process. `ask` many requests at once; `close` at the end."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @classmethod
    async def start(cls, log: Path, *, environ: dict[str, str] | None = None, **settings: Any) -> Served:
        """Start an engine with these fields of EngineSettings; what it logs goes to `log`."""
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                __name__,
                json.dumps(settings, default=str),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})},
                limit=2**26,
            )
        served = cls(process, log)
        assert (await served._answer(240))["ready"]
        return served

    async def ask(self, *requests: dict[str, Any], at_once: bool = True) -> list[dict[str, Any]]:
        """Return the answers. `at_once`: in one batch, as far as the scheduler does; else one after the other."""
        return await self._exchange({"requests": requests, "at_once": at_once})

    async def release(self, ids: list[int], keep: int, salt: str) -> int:
        """Free what is cached of `ids` from token `keep` on; return how many tokens."""
        return await self._exchange({"release": {"ids": ids, "keep": keep, "salt": salt}})

    async def state(self) -> dict[str, Any]:
        """Return the scheduler's internal state, the model card, health and expert load."""
        return await self._exchange({"state": True})

    def prefills(self) -> list[int]:
        """Return how many new tokens each prefill step so far computed, from the scheduler's log."""
        return [int(n) for n in re.findall(r"Prefill batch.*?#new-token: (\d+)", self._log.read_text())]

    async def close(self) -> None:
        """End the engine and wait for its process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await asyncio.wait_for(self._process.wait(), 60)
        assert self._process.returncode == 0, self._tail()

    async def _exchange(self, question: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        await self._process.stdin.drain()
        return await self._answer(120)

    async def _answer(self, seconds: float) -> Any:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), seconds)
        assert line, self._tail()
        return json.loads(line)

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-4000:]


def main(given: dict[str, Any]) -> None:
    """Fork the schedulers as the program does, then serve."""
    from engine.ranks import fork
    from engine.settings import EngineSettings

    settings = EngineSettings(name="served", **{**given, "model_path": Path(given["model_path"])})
    ranks = fork(settings)
    asyncio.run(_serve(settings, ranks))


async def _serve(settings: Any, ranks: Any) -> None:
    """Start the engine, then answer one line of JSON on stdin with one on stdout until stdin ends."""
    from engine.sglang_engine import SglangEngine

    engine = SglangEngine(settings, ranks)
    await engine.start(lambda phase: None)
    print(json.dumps({"ready": True}), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        question = json.loads(line)
        if "release" in question:
            answer = await engine.release(**question["release"])
        else:
            answer = await (_state(engine) if "state" in question else _run(engine, question))
        print(json.dumps(answer), flush=True)
    await engine.close()


async def _run(engine: Any, question: dict[str, Any]) -> list[dict[str, Any]]:
    asked = [_generate(engine, **request) for request in question["requests"]]
    return await asyncio.gather(*asked) if question["at_once"] else [await one for one in asked]


async def _generate(engine: Any, ids: list[int], salt: str = "", **sampling: Any) -> dict[str, Any]:
    from engine.contract import GenerateRequest, Sampling

    chosen = Sampling(**{"temperature": 0.0, "ignore_end": True, **sampling})
    request = GenerateRequest(uuid.uuid4().hex, tuple(ids), chosen, salt, logprobs=5)
    chunks = [chunk async for chunk in engine.generate(request)]
    return {
        "ids": [i for chunk in chunks for i in chunk.ids],
        "steps": [len(chunk.ids) for chunk in chunks if chunk.ids],
        "cached": chunks[-1].cached,
        "logprobs": [asdict(logprob) for chunk in chunks for logprob in chunk.logprobs],
    }


async def _state(engine: Any) -> dict[str, Any]:
    (internal,) = (await engine._runtime.manager.get_internal_state())[:1]
    card = engine.card
    return {
        "memory": internal["memory_usage"],
        "card": {"kv_tokens": card.kv_tokens, "context": card.context, "vocab_size": card.vocab_size},
        "health": asdict(await engine.health()),
        "experts": asdict(engine.expert_load()),
    }


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
