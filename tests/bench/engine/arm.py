"""One arm of the engine benchmark, in its own process: questions on standard input, answers on standard output."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import psutil

from tests.bench.engine.__main__ import ANSWER, CACHED, LONG, NEW, PROMPT


def prompts(seed: object, count: int, length: int) -> list[tuple[int, ...]]:
    """Return random prompts; equal seeds give equal prompts in every arm."""
    source = random.Random(str(seed))
    return [tuple(source.randrange(20, 49_000) for _ in range(length)) for _ in range(count)]


class Ours:
    """The engine behind its contract."""

    def __init__(self, arm: str, model: Path) -> None:
        from engine.settings import EngineSettings
        from engine.sglang_engine import SglangEngine

        extra = {"attention_backend": "torch_native" if arm == "torch_native" else "portable"}
        if arm != "native":
            os.environ["ENGINE_KERNELS"] = "torch"
        settings = EngineSettings(model, "bench", kv_tokens=32_768, max_running=64, extra=extra)
        self._engine = SglangEngine(settings)

    async def start(self) -> None:
        await self._engine.start(lambda phase: None)
        await self._run(prompts("warm", 1, 8)[0], 4)

    async def decode(self, seed: int, streams: int) -> float:
        """Return tokens a second from when all streams have begun."""
        given = prompts(("decode", seed), streams, PROMPT)
        begun, counted = 0, 0
        first = time.perf_counter()

        async def one(ids: tuple[int, ...]) -> None:
            nonlocal begun, counted, first
            is_first = True
            async for chunk in self._engine.generate(self._request(ids, ANSWER)):
                if is_first:
                    is_first, begun = False, begun + 1
                    if begun == streams:
                        first = time.perf_counter()
                elif begun == streams:
                    counted += len(chunk.ids)

        await asyncio.gather(*(one(ids) for ids in given))
        return counted / (time.perf_counter() - first)

    async def prefill(self, seed: int) -> float:
        """Return prompt tokens a second."""
        return LONG / await self._time(prompts(("prefill", seed), 1, LONG)[0])

    async def cached(self, seed: int) -> float:
        """Return milliseconds to the first token behind a cached prefix."""
        (prefix,) = prompts("prefix", 1, CACHED)
        if seed == 0:
            await self._run(prefix, 1)
        return 1000 * await self._time(prefix + prompts(("new", seed), 1, NEW)[0])

    async def ids(self) -> list[list[int]]:
        """Return greedy answers."""
        given = [prompts("ids", 1, length)[0] for length in (12, 130, 700)]
        return [list(await self._run(ids, 32)) for ids in given]

    async def _time(self, ids: tuple[int, ...]) -> float:
        begin = time.perf_counter()
        await self._run(ids, 1)
        return time.perf_counter() - begin

    async def _run(self, ids: tuple[int, ...], count: int) -> tuple[int, ...]:
        chunks = [chunk async for chunk in self._engine.generate(self._request(ids, count))]
        return tuple(token for chunk in chunks for token in chunk.ids)

    def _request(self, ids: tuple[int, ...], count: int) -> Any:
        from engine.contract import GenerateRequest, Sampling

        return GenerateRequest(uuid.uuid4().hex, ids, Sampling(count, temperature=0.0, ignore_end=True))


class Transformers:
    """transformers' generate on one batch of equally long prompts."""

    def __init__(self, arm: str, model: Path) -> None:
        self._path = model

    async def start(self) -> None:
        from engine.cpu import vision_shim

        vision_shim.install()
        import torch
        from transformers import AutoModelForCausalLM

        self._torch = torch
        self._model = AutoModelForCausalLM.from_pretrained(self._path, dtype=torch.float32)

    async def decode(self, seed: int, streams: int) -> float:
        """Return tokens a second, the prefill's time taken off."""
        given = prompts(("decode", seed), streams, PROMPT)
        times = [self._generate(given, count)[1] for count in (1, ANSWER)]
        return streams * (ANSWER - 1) / (times[1] - times[0])

    async def prefill(self, seed: int) -> float:
        """Return prompt tokens a second."""
        return LONG / self._generate(prompts(("prefill", seed), 1, LONG), 1)[1]

    async def cached(self, seed: int) -> None:
        """Return None: it keeps no prefixes."""

    async def ids(self) -> list[list[int]]:
        """Return greedy answers."""
        given = [prompts("ids", 1, length) for length in (12, 130, 700)]
        return [self._generate(ids, 32)[0][0] for ids in given]

    def _generate(self, given: list[tuple[int, ...]], count: int) -> tuple[list[list[int]], float]:
        ids = self._torch.tensor(given)
        begin = time.perf_counter()
        out = self._model.generate(
            ids,
            attention_mask=self._torch.ones_like(ids),
            do_sample=False,
            min_new_tokens=count,
            max_new_tokens=count,
        )
        return out[:, ids.shape[1] :].tolist(), time.perf_counter() - begin


def memory() -> float:
    """Return what this process and its children hold, shared pages divided among their holders, in MB."""
    me = psutil.Process()
    return sum(p.memory_full_info().pss for p in (me, *me.children(recursive=True))) / 2**20


async def main(arm: str, model: Path) -> None:
    """Answer questions until standard input ends."""
    subject = (Transformers if arm == "transformers" else Ours)(arm, model)
    await subject.start()
    _say("ready")
    while line := await asyncio.to_thread(sys.stdin.readline):
        question = json.loads(line)
        op = question.pop("op")
        _say(memory() if op == "memory" else await getattr(subject, op)(**question))
    if isinstance(subject, Ours):
        await subject._engine.close()


def _say(answer: object) -> None:
    print(json.dumps({"answer": answer}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
