"""Weights in blocks (`engine.cpu.packing`), unpacked in registers: to memory, or straight into products.

A block of FOUR is 16 bytes, weight j below weight j + 16, and the weights are `scale * q + least`. With AVX-512 the 16
values a block can have make one vector, and unpacking is a look-up in it. A block of EIGHT is 32 signed bytes.
"""

# ruff: noqa: PLR0917 — intrinsics take what they touch as arguments

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from engine.cpu import target
from engine.cpu.tiles import (
    AS_WRITTEN,
    FLOAT,
    I8,
    I32,
    I64,
    LANES,
    LINE,
    ROWS,
    add_product,
    at,
    load,
    make_sums,
    multiply_add,
    prefetch,
    shuffle,
    spread,
    store,
    vector,
    write_sums,
)

BLOCK = 32
_HALF = BLOCK // 2
TILES_AHEAD = 3
"""How many tiles of rows ahead weights are asked for: the processor's own prefetching stops at every page."""
_LOOKS_UP = target.target() is target.AVX512


def four(builder: Any, address: Any, scale: Any, least: Any) -> list[Any]:
    """Return the 32 weights of a block of FOUR as vectors, in order."""
    pairs = load(builder, vector(I8, _HALF), address, 1)
    if _LOOKS_UP:
        return _look_up(builder, pairs, scale, least)
    low = builder.and_(pairs, ir.Constant(pairs.type, [15] * _HALF))
    high = builder.lshr(pairs, ir.Constant(pairs.type, [4] * _HALF))
    factor, offset = spread(builder, scale), spread(builder, least)
    return [
        multiply_add(builder, _float(builder, part, builder.zext, builder.uitofp), factor, offset)
        for numbers in (low, high)
        for part in _cut(builder, numbers)
    ]


def eight(builder: Any, address: Any, scale: Any) -> list[Any]:
    """Return the 32 weights of a block of EIGHT as vectors, in order."""
    numbers = load(builder, vector(I8, BLOCK), address, 1)
    factor = spread(builder, scale)
    return [
        builder.fmul(_float(builder, part, builder.sext, builder.sitofp), factor, flags=AS_WRITTEN)
        for part in _cut(builder, numbers)
    ]


def _fetch(builder: Any, rows: list[Any], index: Any, size: int) -> None:
    """Ask for what a later tile of rows needs at block `index`, `size` bytes a block: rows lie one after the other."""
    ahead = builder.mul(builder.sub(rows[1], rows[0]), ir.Constant(I64, ROWS * TILES_AHEAD))
    place = builder.add(rows[0], builder.add(ahead, builder.mul(index, ir.Constant(I64, ROWS * size))))
    for line in range(0, ROWS * size, LINE):
        prefetch(builder, at(builder, place, line))


def _look_up(builder: Any, pairs: Any, scale: Any, least: Any) -> list[Any]:
    """Look up both halves of a block; the instruction takes the lowest four bits of each place."""
    ramp = ir.Constant(vector(FLOAT, 16), [float(i) for i in range(16)])
    table = multiply_add(builder, ramp, spread(builder, scale, 16), spread(builder, least, 16))
    places = builder.zext(pairs, vector(I32, 16))
    signature = ir.FunctionType(table.type, (table.type, places.type))
    permute = cgutils.get_or_insert_function(builder.module, signature, "llvm.x86.avx512.permvar.sf.512")
    upper = builder.lshr(places, ir.Constant(places.type, [4] * 16))
    return [builder.call(permute, (table, part)) for part in (places, upper)]


def _cut(builder: Any, numbers: Any) -> list[Any]:
    """Return a vector of bytes as vectors of LANES."""
    return [
        shuffle(builder, numbers, numbers, list(range(first, first + LANES)))
        for first in range(0, numbers.type.count, LANES)
    ]


def _float(builder: Any, numbers: Any, widen: Any, convert: Any) -> Any:
    return convert(widen(numbers, vector(I32, numbers.type.count)), vector(FLOAT, numbers.type.count))


@intrinsic
def unpack_four(typingctx: Any, out: Any, numbers: Any, scale: Any, least: Any) -> Any:
    """Write a block of FOUR to address `out` as 32 floats."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for v, weights in enumerate(four(builder, *arguments[1:])):
            store(builder, weights, at(builder, arguments[0], v * LANES * 4))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float32, types.float32), emit


@intrinsic
def unpack_eight(typingctx: Any, out: Any, numbers: Any, scale: Any) -> Any:
    """Write a block of EIGHT to address `out` as 32 floats."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for v, weights in enumerate(eight(builder, *arguments[1:])):
            store(builder, weights, at(builder, arguments[0], v * LANES * 4))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float32), emit


def make_packed_dots(form: int) -> Any:
    """Return dots(out, x, numbers, scales, leasts, blocks): one token with ROWS packed rows.

    numbers, scales, leasts: tuples of the rows' addresses. `form`: 4 or 8 bits.
    """
    size = BLOCK * form // 8

    @intrinsic
    def dots(typingctx: Any, out: Any, x: Any, numbers: Any, scales: Any, leasts: Any, blocks: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            rows, factors, offsets = (cgutils.unpack_tuple(builder, part) for part in arguments[2:5])
            sums = make_sums(builder, ROWS)
            with cgutils.for_range(builder, arguments[5]) as loop:
                begin = at(builder, arguments[1], builder.mul(loop.index, ir.Constant(I64, BLOCK * 4)))
                columns = [
                    load(builder, vector(FLOAT), at(builder, begin, c * 4), 4) for c in range(0, BLOCK, LANES)
                ]
                near = builder.mul(loop.index, ir.Constant(I64, 4))
                far = builder.mul(loop.index, ir.Constant(I64, size))
                for rows_of, width in ((rows, size), (factors, 4), (offsets, 4)):
                    _fetch(builder, rows_of, loop.index, width)
                for r in range(ROWS):
                    scale = load(builder, FLOAT, at(builder, factors[r], near), 4)
                    place = at(builder, rows[r], far)
                    if form == 4:
                        weights = four(
                            builder, place, scale, load(builder, FLOAT, at(builder, offsets[r], near), 4)
                        )
                    else:
                        weights = eight(builder, place, scale)
                    for column, weight in zip(columns, weights, strict=True):
                        add_product(builder, sums[r], column, weight)
            write_sums(builder, sums, [arguments[0]])
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, numbers, scales, leasts, types.int64), emit

    return dots
