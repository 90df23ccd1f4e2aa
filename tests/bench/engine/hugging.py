"""transformers' generate on the same float32 weights, one batch of equally long prompts."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from tests.bench.engine.memory import held
from tests.bench.engine.questions import ANSWER, LONG, PROMPT, Ids, behind, examples, prompts


class Transformers:
    """generate() with its own cache. It keeps no prefix from one call to the next. See `questions.Subject`."""

    def __init__(self, model: Path) -> None:
        self._path = model

    async def start(self) -> None:
        """Load, then answer once."""
        from engine.cpu import vision_shim

        vision_shim.install()
        import torch
        from transformers import AutoModelForCausalLM

        self._torch = torch
        self._model: Any = AutoModelForCausalLM.from_pretrained(self._path, dtype=torch.float32)
        self._generate(prompts("warm", 1, 8), 4)

    async def decode(self, seed: int, streams: int) -> float:
        """Return tokens a second; the prefill's time is taken off."""
        given = prompts(("decode", seed), streams, PROMPT)
        times = [self._generate(given, count)[1] for count in (1, ANSWER)]
        return streams * (ANSWER - 1) / (times[1] - times[0])

    async def prefill(self, seed: int) -> float:
        """See Subject."""
        return LONG / self._generate(prompts(("prefill", seed), 1, LONG), 1)[1]

    async def first(self, seed: int, cached: bool) -> float | None:
        """Return milliseconds without a cached prefix, None with one."""
        return None if cached else 1000 * self._generate([behind(seed, cached=False)[1]], 1)[1]

    async def ids(self) -> list[list[int]]:
        """See Subject."""
        return [self._generate([ids], 32)[0][0] for ids in examples()]

    def memory(self, private: bool = False) -> float:
        """See Subject."""
        return held(os.getpid(), private)

    async def close(self) -> None:
        """Do nothing: it ends with the process."""

    def _generate(self, given: list[Ids], count: int) -> tuple[list[list[int]], float]:
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
