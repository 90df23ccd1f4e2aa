"""Scores of many queries: keys are turned, so that a vector holds one column of LANES keys, and nothing is folded.

    scores[q][j] = sum over d of x[q][d] * turned[d][j]

The sums are added up as `engine.cpu.tiles.make_dots` does it, column d with d + LANES, d + 2 LANES, …, then those
LANES sums halved into one: equal to the bit. `make_dots` is for few queries, where turning the keys would cost more
than folding.
"""

# ruff: noqa: PLR0917 — intrinsics take what they touch as arguments

from __future__ import annotations

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
    add_product,
    at,
    load,
    load_floats,
    make_sums,
    shuffle,
    spread,
    store,
    vector,
)

VECTORS = 2
"""Vectors of keys of one tile."""

KEYS = VECTORS * LANES
"""Keys of one tile."""


def make_turn() -> Any:
    """Return turn(out, slots, count, base, stride, step, width, like): columns of LANES keys, one vector each.

    out: address; columns are `step` bytes apart · slots: address of int32, `count` of them, behind which the last is
    taken again; key j is at base + slots[j] * stride (bytes) · width: a multiple of LANES · like: an array of the
    type of the keys.
    """

    @intrinsic
    def turn(
        typingctx: Any,
        out: Any,
        slots: Any,
        count: Any,
        base: Any,
        stride: Any,
        step: Any,
        width: Any,
        like: Any,
    ) -> Any:
        bfloat = like.dtype == types.uint16

        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            to, places, number, start, size, gap, columns = arguments[:7]
            rows = _addresses(builder, places, number, start, size)
            with cgutils.for_range(builder, builder.udiv(columns, ir.Constant(I64, LANES))) as loop:
                first = builder.mul(loop.index, ir.Constant(I64, LANES))
                offset = builder.mul(first, ir.Constant(I64, 2 if bfloat else 4))
                vectors = [load_floats(builder, at(builder, row, offset), bfloat) for row in rows]
                for d, column in enumerate(_transpose(builder, vectors)):
                    store(builder, column, at(builder, to, builder.mul(at(builder, first, d), gap)))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7, like), emit

    return turn


def _addresses(builder: Any, slots: Any, count: Any, base: Any, stride: Any) -> list[Any]:
    """Return the addresses of LANES keys."""
    last = builder.sub(count, ir.Constant(I64, 1))
    found = []
    for j in range(LANES):
        place = builder.select(builder.icmp_signed("<", last, ir.Constant(I64, j)), last, ir.Constant(I64, j))
        slot = load(builder, I32, at(builder, slots, builder.mul(place, ir.Constant(I64, 4))), 4)
        found.append(at(builder, base, builder.mul(builder.sext(slot, I64), stride)))
    return found


def _transpose(builder: Any, rows: list[Any]) -> list[Any]:
    """Return the columns of LANES vectors: blocks of 1, 2, 4, … places change sides."""
    size = 1
    while size < LANES:
        low = [p if not p & size else p - size + LANES for p in range(LANES)]
        high = [p + size if not p & size else p + LANES for p in range(LANES)]
        turned = list(rows)
        for r in range(LANES):
            if not r & size:
                a, b = rows[r], rows[r + size]
                turned[r], turned[r + size] = shuffle(builder, a, b, low), shuffle(builder, a, b, high)
        rows, size = turned, 2 * size
    return rows


def make_scores(queries: int) -> Any:
    """Return scores(outs, xs, turned, stride, width): `queries` queries with KEYS turned keys.

    outs, xs: addresses of the queries' results and of themselves · stride: bytes between two columns.
    """

    @intrinsic
    def scores(typingctx: Any, outs: Any, xs: Any, turned: Any, stride: Any, width: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            out, x = (cgutils.unpack_tuple(builder, part) for part in arguments[:2])
            tile = _Tile(builder, x, *arguments[2:])
            for t, sums in enumerate(_pairs(tile.sums(0, 1), VECTORS)):
                for v, found in enumerate(sums):
                    store(builder, found, at(builder, out[t], v * LANES * 4))
            return context.get_dummy_value()

        return types.void(outs, xs, types.int64, types.int64, types.int64), emit

    return scores


class _Tile:
    """Emits the sums of one tile."""

    def __init__(self, builder: Any, queries: list[Any], turned: Any, stride: Any, width: Any) -> None:
        self._builder = builder
        self._queries = queries
        self._turned, self._stride = turned, stride
        self._steps = builder.udiv(width, ir.Constant(I64, LANES))

    def sums(self, first: int, step: int) -> list[Any]:
        """Return the sums over the columns first, first + step, … (modulo LANES) for queries x VECTORS."""
        if step < LANES // 2:
            halves = self.sums(first, 2 * step), self.sums(first + step, 2 * step)
        else:
            halves = self._columns(first, first + step)
        return [self._builder.fadd(a, b, flags=AS_WRITTEN) for a, b in zip(*halves, strict=True)]

    def _columns(self, *firsts: int) -> list[list[Any]]:
        """Return, for two columns, the sums over every LANES-th column from there."""
        builder, count = self._builder, len(self._queries) * VECTORS
        places = [make_sums(builder, count) for _ in firsts]
        with cgutils.for_range(builder, self._steps) as loop:
            begin = builder.mul(loop.index, ir.Constant(I64, LANES))
            for first, sums in zip(firsts, places, strict=True):
                d = at(builder, begin, first)
                row = at(builder, self._turned, builder.mul(d, self._stride))
                keys = [
                    load(builder, vector(FLOAT), at(builder, row, v * LANES * 4), 4) for v in range(VECTORS)
                ]
                offset = builder.mul(d, ir.Constant(I64, 4))
                for t, query in enumerate(self._queries):
                    value = spread(builder, load(builder, FLOAT, at(builder, query, offset), 4))
                    for v, key in enumerate(keys):
                        add_product(builder, sums[t * VECTORS + v], value, key)
        return [[builder.load(place) for place in sums] for sums in places]


def _pairs(values: list[Any], size: int) -> list[list[Any]]:
    return [values[i : i + size] for i in range(0, len(values), size)]
