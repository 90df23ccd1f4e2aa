"""The inner loops, written as LLVM vectors: products of a few rows with a few columns, in registers.

They are written by hand because numba's loops come out with sums spilled to memory, with bytes widened to 64 bits, or
with a reduction for each single product. Every one of them adds up in the same order whatever the number
of rows it is made for: a result does not depend on what else is computed beside it.

    dots    out[t][r] = sum over k of x[t][k] * w[r][k]      r: ROWS
    mixes   out[t][d] = sum over j of p[t][j] * v[j][d]      d: some vectors

`lanes` sums of each product run side by side, over columns k, k + lanes, …; they are then halved into one. Columns
behind the last whole vector are the caller's.
"""

# ruff: noqa: PLR0917 — intrinsics take what they touch as arguments

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from engine.cpu import target

ROWS = 4
"""Rows of one tile of products."""

LANES = target.target().lanes
TOGETHER = target.target().together
WIDE = 4 * LANES
"""Columns of one tile of a mixture."""

LINE = 64
"""Bytes that come from memory together."""

I8, I16, I32, I64, FLOAT = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
AS_WRITTEN = ("contract",)
"""Flags of floating-point instructions: a product may be fused with the sum it goes into, and nothing else changed.

Numba gives the flags of a caller (`engine.cpu.simd.FAST`: sums in any order) to every instruction that has none.
"""


def vector(kind: Any, count: int = LANES) -> ir.VectorType:
    """Return the LLVM type of a vector."""
    return ir.VectorType(kind, count)


def at(builder: Any, address: Any, offset: Any = 0) -> Any:
    """Return address + offset in bytes; both int64."""
    return builder.add(address, offset if isinstance(offset, ir.Value) else ir.Constant(I64, offset))


def load(builder: Any, kind: Any, address: Any, align: int) -> Any:
    """Return the value of an LLVM type at an address."""
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def store(builder: Any, value: Any, address: Any) -> None:
    """Store floats at an address."""
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=4)


def spread(builder: Any, value: Any, count: int = LANES) -> Any:
    """Return a vector with `value` in every place."""
    undefined = ir.Constant(vector(value.type, count), ir.Undefined)
    one = builder.insert_element(undefined, value, ir.Constant(I32, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(vector(I32, count), [0] * count))


def multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a * b + c, fused where the processor can."""
    return builder.fadd(builder.fmul(a, b, flags=AS_WRITTEN), c, flags=AS_WRITTEN)


def shuffle(builder: Any, a: Any, b: Any, places: list[int]) -> Any:
    """Return the chosen places of a followed by b."""
    return builder.shuffle_vector(a, b, ir.Constant(vector(I32, len(places)), places))


def load_floats(builder: Any, address: Any, bfloat: bool) -> Any:
    """Return LANES floats from float32 or bfloat16 at an address."""
    if not bfloat:
        return load(builder, vector(FLOAT), address, 4)
    bits = builder.zext(load(builder, vector(I16), address, 2), vector(I32))
    return builder.bitcast(builder.shl(bits, ir.Constant(bits.type, [16] * LANES)), vector(FLOAT))


def fold(builder: Any, sums: list[list[Any]]) -> list[Any]:
    """Return the sums of vectors, ROWS for each of a power of two of tokens: the tokens one after the other in vectors.

    A vector is added up by halves: places 0 … 7 and 8 … 15, of that 0 … 3 and 4 … 7, and so on. Vectors of different
    tokens meet while halves are larger than four places, those of the rows of a token afterwards: places then move
    within groups of four only, which is far cheaper than to move them anywhere.
    """
    rows = [_halve(builder, list(of_row)) for of_row in zip(*sums, strict=True)]
    return [_fold_rows(builder, one) for one in zip(*rows, strict=True)]


def _halve(builder: Any, vectors: list[Any]) -> list[Any]:
    """Return vectors of different tokens, added up to four places a token, in as few vectors as hold them."""
    segment = LANES
    while segment > ROWS:
        half, width = segment // 2, vectors[0].type.count
        alone = len(vectors) == 1
        pairs = [(vectors[0], vectors[0])] if alone else list(zip(vectors[::2], vectors[1::2], strict=True))
        begins = range(0, width if alone else 2 * width, segment)
        low = [s + i for s in begins for i in range(half)]
        vectors = [_add(builder, a, b, low, [i + half for i in low]) for a, b in pairs]
        segment = half
    return vectors


def _fold_rows(builder: Any, rows: tuple[Any, ...]) -> Any:
    """Return the sums of each group of four places of ROWS vectors, a group holding one sum of each row."""
    width = rows[0].type.count
    groups = range(0, width, ROWS)
    low = [g + i for g in groups for i in (0, 1, width, width + 1)]
    even = [g + i for g in groups for i in (0, 2, width, width + 2)]
    first, second = (_add(builder, a, b, low, [i + 2 for i in low]) for a, b in (rows[:2], rows[2:]))
    return _add(builder, first, second, even, [i + 1 for i in even])


def _add(builder: Any, a: Any, b: Any, these: list[int], those: list[int]) -> Any:
    """Return the sum of two choices of places of a followed by b."""
    return builder.fadd(shuffle(builder, a, b, these), shuffle(builder, a, b, those), flags=AS_WRITTEN)


def total(builder: Any, sums: Any) -> Any:
    """Return the sum of a vector, added up by halves."""
    while (half := sums.type.count // 2) > 0:
        low = list(range(half))
        sums = _add(builder, sums, sums, low, [i + half for i in low])
    return builder.extract_element(sums, ir.Constant(I32, 0))


def make_sums(builder: Any, count: int) -> list[Any]:
    """Return places for `count` vectors of sums, set to zero; LLVM keeps them in registers."""
    zero = ir.Constant(vector(FLOAT), [0.0] * LANES)
    places = [cgutils.alloca_once(builder, vector(FLOAT)) for _ in range(count)]
    for place in places:
        builder.store(zero, place)
    return places


def add_product(builder: Any, place: Any, a: Any, b: Any) -> None:
    """Add a * b to the sums at a place."""
    builder.store(multiply_add(builder, a, b, builder.load(place)), place)


def write_sums(builder: Any, sums: list[Any], outs: list[Any]) -> None:
    """Fold the sums of a tile and store them, ROWS at each of `outs`."""
    vectors = [builder.load(place) for place in sums]
    tokens = [vectors[i : i + ROWS] for i in range(0, len(vectors), ROWS)]
    tokens += tokens[:1] * (len(tokens) == 3)  # a power of two
    folded = fold(builder, tokens)
    for t, out in enumerate(outs):
        source = folded[t * ROWS // folded[0].type.count]
        first = t * ROWS % source.type.count
        store(builder, shuffle(builder, source, source, [first + r for r in range(ROWS)]), out)


def prefetch(builder: Any, address: Any) -> None:
    """Ask for the line at an address; any address will do."""
    pointer = builder.inttoptr(address, I8.as_pointer())
    signature = ir.FunctionType(ir.VoidType(), (pointer.type, I32, I32, I32))
    function = cgutils.get_or_insert_function(builder.module, signature, "llvm.prefetch.p0")
    builder.call(
        function, (pointer, *(ir.Constant(I32, value) for value in (0, 3, 1)))
    )  # to read, keep, data


@intrinsic
def fetch(typingctx: Any, address: Any, size: Any) -> Any:
    """Ask for `size` bytes at an address, which need not exist."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        with cgutils.for_range(builder, builder.udiv(arguments[1], ir.Constant(I64, LINE))) as loop:
            prefetch(builder, at(builder, arguments[0], builder.mul(loop.index, ir.Constant(I64, LINE))))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


def make_dots(tokens: int) -> Any:
    """Return dots(outs, xs, ws, columns, like): addresses of `tokens` outputs and inputs, of ROWS rows, a length.

    `like`: an array of the type of the rows, float32 or the bits of bfloat16.
    """

    @intrinsic
    def dots(typingctx: Any, outs: Any, xs: Any, ws: Any, columns: Any, like: Any) -> Any:
        bfloat = like.dtype == types.uint16

        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            out, x, w = (cgutils.unpack_tuple(builder, part) for part in arguments[:3])
            sums = make_sums(builder, tokens * ROWS)
            whole = builder.udiv(arguments[3], ir.Constant(I64, LANES))
            with cgutils.for_range(builder, whole) as loop:
                offset = builder.mul(loop.index, ir.Constant(I64, LANES * 4))
                offset_w = builder.mul(loop.index, ir.Constant(I64, LANES * (2 if bfloat else 4)))
                rows = [load_floats(builder, at(builder, one, offset_w), bfloat) for one in w]
                for t in range(tokens):
                    column = load(builder, vector(FLOAT), at(builder, x[t], offset), 4)
                    for r, row in enumerate(rows):
                        add_product(builder, sums[t * ROWS + r], column, row)
            write_sums(builder, sums, out)
            return context.get_dummy_value()

        return types.void(outs, xs, ws, types.int64, like), emit

    return dots


def make_mixes(rows: int, vectors: int) -> Any:
    """Return mixes(outs, ps, slots, count, base, stride, like): `vectors` vectors of each of `rows` mixtures.

    ps: addresses of the weights · slots: address of int32 · base, stride: bytes, value j is at
    base + slots[j] * stride.
    `like`: an array of the type of the values.
    """

    @intrinsic
    def mixes(
        typingctx: Any, outs: Any, ps: Any, slots: Any, count: Any, base: Any, stride: Any, like: Any
    ) -> Any:
        bfloat = like.dtype == types.uint16

        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            out, p = (cgutils.unpack_tuple(builder, part) for part in arguments[:2])
            places, number, start, step = arguments[2:6]
            sums = make_sums(builder, rows * vectors)
            with cgutils.for_range(builder, number) as loop:
                offset = builder.mul(loop.index, ir.Constant(I64, 4))
                slot = builder.sext(load(builder, I32, at(builder, places, offset), 4), I64)
                address = at(builder, start, builder.mul(slot, step))
                size = LANES * (2 if bfloat else 4)
                values = [
                    load_floats(builder, at(builder, address, v * size), bfloat) for v in range(vectors)
                ]
                for r in range(rows):
                    weight = spread(builder, load(builder, FLOAT, at(builder, p[r], offset), 4))
                    for v, value in enumerate(values):
                        add_product(builder, sums[r * vectors + v], weight, value)
            for r in range(rows):
                for v in range(vectors):
                    store(builder, builder.load(sums[r * vectors + v]), at(builder, out[r], v * LANES * 4))
            return context.get_dummy_value()

        return types.void(outs, ps, types.int64, types.int64, types.int64, types.int64, like), emit

    return mixes
