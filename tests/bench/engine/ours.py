"""SGLang embedded, with our attention and kernels or without."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.bench.engine.memory import held
from tests.bench.engine.questions import ANSWER, LONG, PROMPT, Ids, behind, examples, prompts, rate

MOST_STREAMS = 64
KV_TOKENS = 32_768
_SETTINGS = {
    "native": {},
    "int8": {"ENGINE_WEIGHTS": "int8"},
    "torch": {"ENGINE_KERNELS": "torch"},
    "torch_native": {"ENGINE_KERNELS": "torch"},
}
ARMS = tuple(_SETTINGS)


class Ours:
    """The engine behind its contract. See `questions.Subject`."""

    def __init__(self, arm: str, model: Path) -> None:
        """Import SGLang and fork, as the engine role does, before there is an event loop; not so torch_native."""
        from engine import ranks
        from engine.settings import EngineSettings
        from engine.sglang_engine import SglangEngine

        os.environ |= _SETTINGS[arm]
        extra = {"attention_backend": "torch_native"} if arm == "torch_native" else {}
        settings = EngineSettings(model, "bench", kv_tokens=KV_TOKENS, max_running=MOST_STREAMS, extra=extra)
        self._engine = SglangEngine(settings, None if arm == "torch_native" else ranks.fork(settings))

    async def start(self) -> None:
        """Launch, then answer once."""
        await self._engine.start(lambda phase: None)
        await self._run(prompts("warm", 1, 8)[0], 4)

    async def decode(self, seed: int, streams: int) -> float:
        """See Subject."""
        return await rate([self._counts(ids) for ids in prompts(("decode", seed), streams, PROMPT)])

    async def prefill(self, seed: int) -> float:
        """See Subject."""
        return LONG / await self._time(prompts(("prefill", seed), 1, LONG)[0])

    async def first(self, seed: int, cached: bool) -> float:
        """See Subject."""
        prefix, new = behind(seed, cached)
        if prefix:
            await self._run(prefix, 1)
        return 1000 * await self._time(prefix + new)

    async def ids(self) -> list[list[int]]:
        """See Subject."""
        return [list(await self._run(ids, 32)) for ids in examples()]

    def memory(self, private: bool = False) -> float:
        """See Subject."""
        return held(os.getpid(), private)

    async def close(self) -> None:
        """See Subject."""
        await self._engine.close()

    async def _counts(self, ids: Ids) -> AsyncIterator[int]:
        async for chunk in self._engine.generate(_request(ids, ANSWER)):
            yield len(chunk.ids)

    async def _time(self, ids: Ids) -> float:
        begin = time.perf_counter()
        await self._run(ids, 1)
        return time.perf_counter() - begin

    async def _run(self, ids: Ids, count: int) -> Ids:
        chunks = [chunk async for chunk in self._engine.generate(_request(ids, count))]
        return tuple(token for chunk in chunks for token in chunk.ids)


def _request(ids: Ids, count: int) -> Any:
    from engine.contract import GenerateRequest, Sampling

    return GenerateRequest(uuid.uuid4().hex, ids, Sampling(count, temperature=0.0, ignore_end=True))
