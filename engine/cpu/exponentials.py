"""exp in vectors, and what is made of it: the weights of attention, and silu.

    e^x = 2^n · e^f      n = x / ln 2 rounded, f = x - n · ln 2 in ±ln 2 / 2, e^f by its Taylor polynomial

The error is about one unit in the last place; x is clamped to ±87.
"""

# ruff: noqa: PLR0917 — intrinsics take what they touch as arguments

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from engine.cpu.tiles import (
    AS_WRITTEN,
    FLOAT,
    I32,
    I64,
    LANES,
    at,
    load,
    multiply_add,
    shuffle,
    spread,
    store,
    total,
    vector,
)

LOWEST = -1e30
"""Below every score."""

_BOUND = 87.0
_DEGREE = 6
_LN_2 = 0.693359375  # so few bits that n times it is exact; what is missing is subtracted apart
_ROUNDING = 12582912.0  # 1.5 · 2^23: adding it leaves a whole number in the lowest bits


def exp(builder: Any, x: Any) -> Any:
    """Return e^x of a vector."""
    x = least(builder, greatest(builder, x, constant(-_BOUND)), constant(_BOUND))
    shifted = multiply_add(builder, x, constant(1 / math.log(2)), constant(_ROUNDING))
    n = builder.fsub(shifted, constant(_ROUNDING), flags=AS_WRITTEN)
    f = multiply_add(builder, n, constant(-_LN_2), x)
    f = multiply_add(builder, n, constant(_LN_2 - math.log(2)), f)
    power = constant(1 / math.factorial(_DEGREE))
    for degree in reversed(range(_DEGREE)):
        power = multiply_add(builder, power, f, constant(1 / math.factorial(degree)))
    ints = vector(I32)
    exponent = builder.shl(builder.bitcast(shifted, ints), ir.Constant(ints, [23] * LANES))
    return builder.bitcast(builder.add(builder.bitcast(power, ints), exponent), vector(FLOAT))


def constant(value: float) -> Any:
    """Return a vector with the float32 nearest to `value` in every place."""
    return ir.Constant(vector(FLOAT), [value] * LANES)


def greatest(builder: Any, a: Any, b: Any) -> Any:
    """Return the greater of each place."""
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def least(builder: Any, a: Any, b: Any) -> Any:
    """Return the less of each place."""
    return builder.select(builder.fcmp_ordered("<", a, b), a, b)


@intrinsic
def weigh(typingctx: Any, scores: Any, seen: Any, count: Any, scale: Any, sums: Any) -> Any:
    """Turn `count` scores of a query into exp(scaled score - greatest), 0 from place `seen` on.

    scores, sums: addresses. sums: their sum, and the greatest. Places up to the next whole vector are written too.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        where, last, number, factor, out = arguments
        vectors = builder.udiv(at(builder, number, LANES - 1), ir.Constant(I64, LANES))
        ends, factors = spread(builder, builder.trunc(last, I32)), spread(builder, factor)
        top, whole = (cgutils.alloca_once_value(builder, constant(value)) for value in (LOWEST, 0.0))
        with cgutils.for_range(builder, vectors) as loop:
            place, inside = _place(builder, where, loop.index, ends)
            score = builder.fmul(load(builder, vector(FLOAT), place, 4), factors, flags=AS_WRITTEN)
            score = builder.select(inside, score, constant(LOWEST))
            store(builder, score, place)
            builder.store(greatest(builder, score, builder.load(top)), top)
        highest = _highest(builder, builder.load(top))
        store(builder, highest, at(builder, out, 4))
        highest = spread(builder, highest)
        with cgutils.for_range(builder, vectors) as loop:
            place, inside = _place(builder, where, loop.index, ends)
            score = builder.fsub(load(builder, vector(FLOAT), place, 4), highest, flags=AS_WRITTEN)
            weight = builder.select(inside, exp(builder, score), constant(0.0))
            store(builder, weight, place)
            builder.store(builder.fadd(weight, builder.load(whole), flags=AS_WRITTEN), whole)
        store(
            builder,
            total(builder, builder.load(whole)),
            out,
        )
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.float32, types.int64), emit


@intrinsic
def silu(typingctx: Any, gate: Any, up: Any, count: Any) -> Any:
    """Set `count` floats at address `gate` to silu(gate) * up; up to the next whole vector, which must exist."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        gates, ups, number = arguments
        with cgutils.for_range(
            builder, builder.udiv(at(builder, number, LANES - 1), ir.Constant(I64, LANES))
        ) as loop:
            offset = builder.mul(loop.index, ir.Constant(I64, LANES * 4))
            x, factor = (load(builder, vector(FLOAT), at(builder, part, offset), 4) for part in (gates, ups))
            below = builder.fadd(constant(1.0), exp(builder, builder.fneg(x)), flags=AS_WRITTEN)
            store(
                builder,
                builder.fmul(builder.fdiv(x, below, flags=AS_WRITTEN), factor, flags=AS_WRITTEN),
                at(builder, gates, offset),
            )
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), emit


def _place(builder: Any, base: Any, index: Any, ends: Any) -> tuple[Any, Any]:
    """Return the address of a vector of floats, and which of its places lie before the end."""
    first = builder.mul(index, ir.Constant(I64, LANES))
    ramp = ir.Constant(vector(I32), list(range(LANES)))
    places = builder.add(spread(builder, builder.trunc(first, I32)), ramp)
    inside = builder.icmp_signed("<", places, ends)
    return at(builder, base, builder.mul(first, ir.Constant(I64, 4))), inside


def _highest(builder: Any, values: Any) -> Any:
    """Return the greatest place of a vector."""
    while (half := values.type.count // 2) > 0:
        low, high = (shuffle(builder, values, values, list(range(i, i + half))) for i in (0, half))
        values = greatest(builder, low, high)
    return builder.extract_element(values, ir.Constant(I32, 0))
