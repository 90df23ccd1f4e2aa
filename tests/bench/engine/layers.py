"""The kernels alone: all layers of the default model's shape, one step at a time, in milliseconds.

    python -m tests.bench.engine.layers [--threads N] [--repeats N]

Random weights in 4-bit blocks, random keys; the least of some runs, so that other programs disturb little.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

from engine.cpu import native
from tests.engine.cpu.small_llama import Shape, Steps

SHAPE = Shape(layers=30, hidden=576, inner=1536, heads=9, kv_heads=3, width=64, slots=6000)
STEPS = (
    ("1 token, empty", 1, 0),
    ("1 behind 4,000", 1, 4000),
    ("8 tokens, empty", 8, 0),
    ("8 behind 4,000", 8, 4000),
    ("20 tokens, empty", 20, 0),
    ("20 behind 4,000", 20, 4000),
    ("64 tokens, empty", 64, 0),
    ("256 tokens, empty", 256, 0),
    ("256 behind 768", 256, 768),
)
"""Name, new tokens, cached tokens."""


class Step:
    """The layers, a pool, and one step at a time."""

    def __init__(self) -> None:
        if native.team() is None:
            raise SystemExit("no native kernels on this machine")
        torch.manual_seed(0)
        self._steps = Steps(SHAPE, torch.arange(SHAPE.slots, dtype=torch.int32)[None])

    def run(self, new: int, cached: int) -> None:
        """Run all layers for `new` tokens behind `cached` ones."""
        self._run(torch.arange(cached, cached + new))

    def batch(self, rows: int, cached: int) -> None:
        """Run all layers for `rows` requests of one token each."""
        self._run(torch.full((rows,), cached))

    def _run(self, positions: torch.Tensor) -> None:
        self._steps.run(torch.randn(len(positions), SHAPE.hidden), torch.zeros_like(positions), positions)


def best(run: Any, repeats: int) -> tuple[float, float]:
    """Return the least CPU time and the least wall time of some runs, in milliseconds."""
    run()
    times = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        times.append((1000 * (time.process_time() - cpu), 1000 * (time.perf_counter() - wall)))
    return min(cpu for cpu, _ in times), min(wall for _, wall in times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    step = Step()
    for name, new, cached in STEPS:
        cpu, wall = best(lambda: step.run(new, cached), options.repeats)  # noqa: B023
        print(f"{name:20} {cpu:8.1f} CPU ms {wall:8.1f} ms", flush=True)
    for rows in (16, 32, 64):
        cpu, wall = best(lambda: step.batch(rows, 130), options.repeats)  # noqa: B023
        print(f"{rows:3} rows behind 130   {cpu:8.1f} CPU ms {wall:8.1f} ms", flush=True)


if __name__ == "__main__":
    main()
