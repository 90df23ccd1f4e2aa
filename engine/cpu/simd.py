"""The words that the kernels are written in: memory at an address, threads, and a vectorisable exp.

Everything here is compiled by numba into its caller. Arithmetic is float32 throughout: a plain Python
number in an expression would make it float64, so constants are `F32(...)`.
"""

# Intrinsics get their first parameter from numba:
# pyright: reportCallIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numba.np.numpy_support import carray

F32 = np.float32

FAST = {"reassoc", "contract", "arcp", "nsz"}
"""What LLVM may do with floats: reorder sums so that they vectorise; infinities stay meaningful."""

ZERO = F32(0.0)
ONE = F32(1.0)
LOWEST = F32(-1e30)
"""Below every score."""

_LOG2_E = F32(1.4426950408889634)
_LN_2 = F32(0.6931471805599453)
_HALF = F32(0.5)
_EXP_BOUND = F32(87.0)
# Taylor coefficients of exp on [-ln2/2, ln2/2]: the error is about one unit in the last place.
_C2 = F32(1 / 2)
_C3 = F32(1 / 6)
_C4 = F32(1 / 24)
_C5 = F32(1 / 120)
_C6 = F32(1 / 720)

# Any: numba gives them their meaning, Python never calls them.
thread_index: Any = types.ExternalFunction("omp_get_thread_num", types.int32())
_sched_yield: Any = types.ExternalFunction("sched_yield", types.int32())

_SPINS = 4000
"""Looks at a counter before a waiting thread offers its processor to others: some microseconds."""


@intrinsic
def pointer(typingctx: Any, value: Any) -> Any:
    """Return an int64 as an untyped pointer."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), emit


@intrinsic
def float_of(typingctx: Any, bits: Any) -> Any:
    """Return the float32 with these 32 bits (int32)."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), emit


@intrinsic
def double_of(typingctx: Any, bits: Any) -> Any:
    """Return the float64 with these 64 bits (int64)."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), emit


@intrinsic
def _fetch_add(typingctx: Any, at: Any, amount: Any) -> Any:
    """Add to the int64 at an address and return what it was; other threads see it in order."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", place, arguments[1], "acq_rel")

    return types.int64(types.int64, types.int64), emit


@njit
def take(counters, phase):
    """Return the next unit of a phase, which nobody else gets; it may lie behind the last one.

    A thread takes one unit after the other, so a thread that the system does not run holds up nobody: the
    others do its work. With fixed shares every phase would wait for it.
    """
    return _fetch_add(counters + phase * 128, 1)


@njit
def done(counters, phase):
    """Say that one unit of the phase is finished."""
    _fetch_add(counters + phase * 128 + 64, 1)


@njit
def wait(counters, phase, units):
    """Return when all units of the phase are finished."""
    spins = 0
    while _fetch_add(counters + phase * 128 + 64, 0) < units:
        spins += 1
        if spins > _SPINS:
            _sched_yield()


@intrinsic
def widen(typingctx: Any, value: Any) -> Any:
    """Return a stored number as float32: float32 as it is, uint16 as the bits of a bfloat16."""

    def same(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return arguments[0]

    def shifted(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = builder.zext(arguments[0], ir.IntType(32))
        return builder.bitcast(builder.shl(wide, ir.Constant(ir.IntType(32), 16)), ir.FloatType())

    return types.float32(value), (shifted if value == types.uint16 else same)


@njit(inline="always")
def floats(at, count):
    """Return the float32 array at an address."""
    return carray(pointer(at), count, np.float32)


@njit(inline="always")
def halves(at, count):
    """Return the array of bfloat16 bits at an address."""
    return carray(pointer(at), count, np.uint16)


@njit(inline="always")
def array(like, at, count):
    """Return the array at an address, of the type that the array `like` has."""
    return carray(pointer(at), count, like.dtype)


@njit(inline="always")
def longs(at, count):
    """Return the int64 array at an address."""
    return carray(pointer(at), count, np.int64)


@njit(inline="always")
def ints(at, count):
    """Return the int32 array at an address."""
    return carray(pointer(at), count, np.int32)


@njit(fastmath=FAST, inline="always")
def exp(x):
    """Return e^x in float32, x clamped to ±87."""
    x = min(max(x, -_EXP_BOUND), _EXP_BOUND)
    n = np.floor(x * _LOG2_E + _HALF)
    f = x - n * _LN_2
    p = ONE + f * (ONE + f * (_C2 + f * (_C3 + f * (_C4 + f * (_C5 + f * _C6)))))
    return p * float_of(np.int32((np.int32(n) + np.int32(127)) << np.int32(23)))
