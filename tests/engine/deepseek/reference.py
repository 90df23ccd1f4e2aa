"""What transformers computes for the same checkpoint: the truth that the engine is held to."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

TOLERANCE = 1e-3
"""Largest difference of two log-probabilities in float32."""


class Reference:
    """Transformers' model in float32 and its log-probabilities."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self._torch = torch
        self._rows = functools.lru_cache(256)(self._computed)
        """One computation for the spreads, which are asked the same."""
        self._greedy = functools.lru_cache(64)(self._generated)
        self.model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)

    def greedy(self, ids: list[int], count: int) -> list[int]:
        """Return transformers' own greedy continuation."""
        return self._greedy(tuple(ids), count)

    def check(self, prompt: list[int], answer: dict[str, Any], *, greedy: bool = True) -> float:
        """Assert that every token of an answer is transformers' choice, its log-probabilities too.

        Teacher-forced: equal choices at every place make the whole equal to a greedy run. Returns the
        largest difference.
        """
        ids = answer["ids"]
        assert len(ids) == len(answer["logprobs"]) > 0
        rows = self._rows(tuple(prompt), tuple(ids))
        if greedy:
            assert rows.argmax(-1).tolist() == ids
        worst = 0.0
        for row, token, logprob in zip(rows, ids, answer["logprobs"], strict=True):
            likeliest = logprob["likeliest"]
            assert [i for i, _ in likeliest] == row.topk(len(likeliest)).indices.tolist()
            told = [(token, logprob["value"]), *likeliest]
            worst = max(worst, *(abs(row[i].item() - value) for i, value in told))
        assert worst < TOLERANCE, worst
        return worst

    def _generated(self, ids: tuple[int, ...], count: int) -> list[int]:
        given = self._torch.tensor([ids])
        out = self.model.generate(given, max_new_tokens=count, min_new_tokens=count, do_sample=False)
        return out[0, len(ids) :].tolist()

    def _computed(self, prompt: tuple[int, ...], ids: tuple[int, ...]) -> Any:
        """Return the log-probabilities in whose places the tokens of an answer were chosen."""
        with self._torch.no_grad():
            logits = self.model(self._torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
        return logits.float().log_softmax(-1)
