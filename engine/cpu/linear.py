"""A matrix product with packed weights, natively: `y = x · weightᵀ` for any number of tokens."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from engine.cpu import native
from engine.cpu.packing import Packed

BLOCK_TOKENS = 256
"""Tokens of one call, at most."""

_NEAR_FLOATS = 192 * 1024
"""Inputs of one call: 768 KB, which stay in a second-level cache of 1 MB while all weights pass by."""

_TRIALS = 3


class NativeLinear:
    """Multiplies with one matrix. Not thread-safe: calls share one description."""

    def __init__(self, weights: Packed, team: native.Team) -> None:
        from engine.cpu import linear_kernels  # noqa: PLC0415 — imports numba

        self.weights = weights
        self._k = linear_kernels
        self._team = team
        self._code = team.compile(linear_kernels.multiply)
        self._counters = np.zeros(native.COUNTER_WORDS, np.int64)
        self._words = np.zeros(linear_kernels.MULTIPLY_WORDS, np.int64)
        self._words[linear_kernels.COUNTERS] = self._counters.ctypes.data
        describe(weights, self._words[linear_kernels.WEIGHTS :])

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return float32 [tokens, rows] for x [tokens, columns]."""
        given = x.float().contiguous()
        out = torch.empty((given.shape[0], self.weights.rows))
        count = block_tokens(self.weights.columns)
        for begin in range(0, given.shape[0], count):
            self._multiply(given[begin : begin + count], out[begin : begin + count])
        return out

    def _multiply(self, x: torch.Tensor, out: torch.Tensor) -> None:
        k, words, threads = self._k, self._words, native.threads()
        size = k.STRIP * (self.weights.columns + x.shape[0]) + 64
        scratch = torch.empty(size * threads)
        words[k.INPUT], words[k.OUTPUT], words[k.TOKENS] = x.data_ptr(), out.data_ptr(), x.shape[0]
        words[k.SCRATCH], words[k.SCRATCH_SIZE] = scratch.data_ptr(), size
        self._counters.fill(0)
        self._team.run(self._code, words.ctypes.data, threads)


def block_tokens(columns: int) -> int:
    """Return how many tokens of `columns` floats to multiply in one call."""
    return max(BLOCK_TOKENS // 8, min(BLOCK_TOKENS, _NEAR_FLOATS // columns // 4 * 4))


def is_faster(linear: NativeLinear, weight: torch.Tensor) -> bool:
    """Measure both ways on a full block of tokens: torch's library is better on some processors."""
    x = torch.ones(BLOCK_TOKENS, weight.shape[1])
    ours = _best(lambda: linear(x))
    return ours < _best(lambda: torch.nn.functional.linear(x, weight))


def describe(packed: Packed, words: np.ndarray) -> None:
    """Write the description of a matrix, as `linear_kernels` reads it, to the front of `words`."""
    words[:6] = (
        packed.numbers.data_ptr(),
        packed.scales.data_ptr(),
        packed.leasts.data_ptr(),
        int(packed.form),
        packed.rows,
        packed.columns,
    )


def _best(run: Callable[[], object]) -> float:
    """Return the shortest of a few runs, in seconds: other programs only make a run longer."""
    times = []
    for _ in range(_TRIALS):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times)
