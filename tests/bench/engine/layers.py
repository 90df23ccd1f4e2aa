"""The kernels alone: all layers of the default model's shape, one step at a time, in milliseconds.

    python -m tests.bench.engine.layers [--threads N] [--repeats N]

Random weights in 4-bit blocks, random keys; the least of some runs, so that other programs disturb little.
"""

from __future__ import annotations

import argparse
import time
from types import SimpleNamespace
from typing import Any

import torch

from engine.cpu import native
from engine.cpu.decode_attention import NativeDecoder
from engine.cpu.llama import SLICE, _Layers

LAYERS, HIDDEN, INNER, HEADS, KV_HEADS, WIDTH = 30, 576, 1536, 9, 3, 64
SLOTS = 6000
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
        torch.manual_seed(0)
        team = native.team()
        if team is None:
            raise SystemExit("no native kernels on this machine")
        self._layers = _Layers(_model(), team)
        self._pool = _Pool()
        self._layers._words = self._layers._describe(self._pool)
        self._decoder = NativeDecoder(torch.arange(SLOTS, dtype=torch.int32)[None], team, HEADS // KV_HEADS)

    def run(self, new: int, cached: int) -> None:
        """Run all layers for `new` tokens behind `cached` ones."""
        stream, places = torch.randn(new, HIDDEN), torch.arange(cached, cached + new)
        for begin in range(0, new, SLICE):
            rows = slice(begin, begin + SLICE)
            self._decoder.plan(torch.zeros(new, dtype=torch.int64)[rows], places[rows] + 1)
            self._layers._run(self._decoder, stream[rows], places[rows], places[rows])

    def batch(self, rows: int, cached: int) -> None:
        """Run all layers for `rows` requests of one token each."""
        places = torch.full((rows,), cached)
        self._decoder.plan(torch.zeros(rows, dtype=torch.int64), places + 1)
        self._layers._run(self._decoder, torch.randn(rows, HIDDEN), places, places)


class _Pool:
    def __init__(self) -> None:
        self._keys, self._values = (
            [torch.randn(SLOTS, KV_HEADS, WIDTH) for _ in range(LAYERS)] for _ in range(2)
        )

    def get_key_buffer(self, layer: int) -> torch.Tensor:
        return self._keys[layer]

    def get_value_buffer(self, layer: int) -> torch.Tensor:
        return self._values[layer]


def _model() -> Any:
    rows = (HEADS + 2 * KV_HEADS) * WIDTH
    attention = SimpleNamespace(
        num_heads=HEADS,
        num_kv_heads=KV_HEADS,
        head_dim=WIDTH,
        scaling=WIDTH**-0.5,
        rotary_emb=SimpleNamespace(cos_sin_cache=torch.randn(SLOTS, WIDTH)),
    )
    layers = []
    for _ in range(LAYERS):
        own = SimpleNamespace(
            **vars(attention), qkv_proj=_linear(rows, HIDDEN), o_proj=_linear(HIDDEN, HIDDEN)
        )
        mlp = SimpleNamespace(gate_up_proj=_linear(2 * INNER, HIDDEN), down_proj=_linear(HIDDEN, INNER))
        norm = SimpleNamespace(weight=torch.ones(HIDDEN))
        layers.append(
            SimpleNamespace(self_attn=own, mlp=mlp, input_layernorm=norm, post_attention_layernorm=norm)
        )
    config = SimpleNamespace(hidden_size=HIDDEN, rms_norm_eps=1e-5)
    return SimpleNamespace(layers=layers, config=config, forward=None)


def _linear(rows: int, columns: int) -> Any:
    from tests.engine.cpu.test_packing import blocks_of_four

    return SimpleNamespace(weight=blocks_of_four(rows, columns))


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
