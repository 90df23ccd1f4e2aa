"""What the CPU engine is to reach, judged by the medians of one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

OURS, LLAMA, TRANSFORMERS = "native", "llama.cpp", "transformers"
EMPTY, BEHIND = "first token ms, empty", "first token ms, 4000 cached"
PREFILL, START = "prefill", "start s"
MEMORY, PRIVATE = "memory MB", "of it in one process alone"

Medians = Mapping[str, Mapping[str, float]]
"""arm -> figure -> median."""


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal: a figure of a run and its bound. `limit`: what keeps the figure from being better."""

    name: str
    bound: float
    figure: Callable[[Medians], float]
    limit: str
    at_most: bool = False

    def judge(self, medians: Medians) -> list[str] | None:
        """Return a row of the table, or None if the run has not measured it."""
        try:
            value = self.figure(medians)
        except KeyError:
            return None
        met = value <= self.bound if self.at_most else value >= self.bound
        sign = "≤" if self.at_most else "≥"
        return [self.name, f"{value:.2f}", f"{sign} {self.bound:g}", "met" if met else "MISSED", self.limit]


def decode(streams: int) -> str:
    """Return the name of the figure."""
    return f"decode x{streams}"


def steps_behind(medians: Medians) -> float:
    """Return how many decode steps of one stream later the first token comes behind a cached prefix."""
    ours = medians[OURS]
    return (ours[BEHIND] - ours[EMPTY]) * ours[decode(1)] / 1000


def _ratio(name: str, peer: str) -> Callable[[Medians], float]:
    return lambda medians: medians[OURS][name] / medians[peer][name]


_STEP = "weights read from memory, and SGLang's step around the kernels"
_PRODUCTS = "products in float32, for results that are exact"
GOALS = (
    Goal("decode x1 / llama.cpp", 0.6, _ratio(decode(1), LLAMA), _STEP),
    Goal("decode x16 / llama.cpp", 1.0, _ratio(decode(16), LLAMA), _PRODUCTS),
    Goal("decode x32 / llama.cpp", 1.0, _ratio(decode(32), LLAMA), _PRODUCTS),
    Goal("prefill / llama.cpp", 1.5, _ratio(PREFILL, LLAMA), _PRODUCTS),
    *(
        Goal(f"decode x{n} / transformers", 2.0, _ratio(decode(n), TRANSFORMERS), _PRODUCTS)
        for n in (1, 4, 16, 32, 64)
    ),
    Goal("prefill / transformers", 2.0, _ratio(PREFILL, TRANSFORMERS), _PRODUCTS),
    Goal(
        "cached 4000 behind empty, steps",
        2.0,
        steps_behind,
        "keys and values of 4,000 tokens, for each new token",
        at_most=True,
    ),
    Goal(
        "start to ready, s", 12.0, lambda medians: medians[OURS][START], "imports of torch and SGLang", True
    ),
)


def judge(medians: Medians) -> list[list[str]]:
    """Return a row for each goal that the run has measured: name, figure, bound, verdict, limit."""
    return [row for goal in GOALS if (row := goal.judge(medians))]
