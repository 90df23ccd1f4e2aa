"""Weights of attention and silu, written as vectors, agree with their formulas."""

# Intrinsics get their first parameter from numba:
# pyright: reportCallIssue=false

import numpy as np
import pytest

from engine.cpu import native

if native.team() is None:
    pytest.skip("no native kernels on this machine", allow_module_level=True)

from numba import njit

from engine.cpu import exponentials
from engine.cpu.simd import FAST
from engine.cpu.tiles import LANES


@njit(fastmath=FAST)
def weigh(scores, seen, count, scale, sums):
    """Call the intrinsic from a function that lets LLVM reorder sums, as the kernels do."""
    exponentials.weigh(scores, seen, count, scale, sums)


@njit(fastmath=FAST)
def silu(gate, up, count):
    """The same for silu."""
    exponentials.silu(gate, up, count)


@pytest.mark.parametrize(("count", "seen"), [(1, 1), (256, 256), (130, 37), (16, 0), (33, -4)])
def test_weights_of_attention(count, seen):
    """Keys behind the last that a query may see weigh nothing; the sum and the greatest score are told."""
    scores = np.random.default_rng(0).normal(0, 20, count + LANES).astype(np.float32)
    scaled = scores[: max(seen, 0)] * np.float32(0.125)
    sums = np.zeros(2, np.float32)
    weigh(scores.ctypes.data, seen, count, np.float32(0.125), sums.ctypes.data)
    greatest = scaled.max() if seen > 0 else np.float32(exponentials.LOWEST)
    expected = np.exp((scaled - greatest).astype(np.float64))
    np.testing.assert_allclose(scores[: len(scaled)], expected, rtol=5e-7)
    assert not scores[len(scaled) : count].any()
    np.testing.assert_allclose(sums, [expected.sum(), greatest], rtol=5e-7)


def test_silu_from_one_end_of_floats_to_the_other():
    """Neither a very negative nor a very positive gate overflows."""
    gate = np.linspace(-200, 200, 4 * LANES, dtype=np.float32)
    up = np.full_like(gate, 3.0)
    wide = gate.astype(np.float64)
    silu(gate.ctypes.data, up.ctypes.data, len(gate))
    np.testing.assert_allclose(gate, 3 * wide / (1 + np.exp(-wide)), rtol=5e-7, atol=1e-30)
