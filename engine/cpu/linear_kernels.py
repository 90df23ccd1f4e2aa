"""Products with packed weights (`engine.cpu.packing`), for few tokens at a time.

Four rows of weights at a time are unpacked into a scratch row that stays in the first-level cache, then
multiplied with every token: each weight is read from memory once, whatever the number of tokens.
"""

# ruff: noqa: PLR0917 — kernels take what they touch as arguments
# Intrinsics get their first parameter from numba:
# pyright: reportCallIssue=false

from __future__ import annotations

from numba import njit

from engine.cpu.blocks import TILES_AHEAD, make_packed_dots, unpack_eight, unpack_four
from engine.cpu.packing import BLOCK, Form
from engine.cpu.simd import (
    FAST,
    done,
    floats,
    halves,
    take,
    thread_index,
    wait,
    widen,
)
from engine.cpu.tiles import LANES, TOGETHER, fetch, make_dots
from engine.cpu.tiles import ROWS as ROWS_OF_TILE

TILE = ROWS_OF_TILE
"""Rows that are unpacked and multiplied together."""

UNIT = 16
"""Rows of one unit of work."""

# Positions in the description of a matrix, MATRIX words long: addresses, form, and sizes in weights.
NUMBERS, SCALES, LEASTS, FORM, ROWS, COLUMNS, MATRIX = range(7)

# Positions in the words of `multiply`.
INPUT, OUTPUT, TOKENS, SCRATCH, SCRATCH_SIZE, COUNTERS, WEIGHTS = range(7)
MULTIPLY_WORDS = WEIGHTS + MATRIX

_HALF_BLOCK = BLOCK // 2
_FULL, _FOUR, _EIGHT = int(Form.FULL), int(Form.FOUR), int(Form.EIGHT)

_dots_1, _dots_2, _dots_4 = make_dots(1), make_dots(2), make_dots(4)
_dots_four, _dots_eight = make_packed_dots(4), make_packed_dots(8)


def multiply(words):
    """Set OUTPUT [tokens, rows] to INPUT [tokens, columns] times the transposed weights; runs on every thread."""
    _multiply(words)


@njit(fastmath=FAST)
def _multiply(w):
    scratch = w[SCRATCH] + thread_index() * w[SCRATCH_SIZE] * 4
    rows = w[WEIGHTS + ROWS]
    units = (rows + UNIT - 1) // UNIT
    unit = take(w[COUNTERS], 0)
    while unit < units:
        for row in range(unit * UNIT, min(rows, (unit + 1) * UNIT), TILE):
            tile = product(w, WEIGHTS, row, w[INPUT], w[TOKENS], scratch)
            store(tile, w[OUTPUT], w[TOKENS], rows, row)
        done(w[COUNTERS], 0)
        unit = take(w[COUNTERS], 0)
    wait(w[COUNTERS], 0, units)


@njit
def scratch_floats(columns, tokens):
    """Return how many floats of scratch `product` needs: the unpacked rows and the tile of results."""
    return TILE * columns + TILE * tokens


@njit
def product(w, matrix, row, tokens_at, tokens, scratch):
    """Multiply rows row … row + TILE with every token; return the address of the tile [tokens, TILE].

    `matrix`: where the description of the weights begins in `w`. Rows behind the last repeat it.
    """
    columns = w[matrix + COLUMNS]
    form = w[matrix + FORM]
    out = scratch + columns * TILE * 4
    last = w[matrix + ROWS] - 1
    if tokens == 1 and form in (_FOUR, _EIGHT):
        _one_packed(w, matrix, row, last, tokens_at, out)
        return out
    base = scratch
    size = columns * 4
    if form == _FULL:
        base = w[matrix + NUMBERS] + row * size
        last = (last - row) * size
        rows = (base, base + min(size, last), base + min(2 * size, last), base + min(3 * size, last))
    else:
        for i in range(TILE):
            unpack_row(scratch + i * size, w, matrix, min(row + i, last), columns)
        rows = (scratch, scratch + size, scratch + 2 * size, scratch + 3 * size)
    _tokens(out, tokens_at, tokens, size, rows, columns)
    return out


@njit
def _tokens(out, x, tokens, size, rows, columns):
    """Set `out` [tokens, TILE] to the products of all tokens with a tile of rows; `size`: bytes of a token."""
    like = floats(x, 1)
    t = 0
    if TOGETHER == 4:
        while t + 4 <= tokens:
            o, i = out + t * 16, x + t * size
            _dots_4(
                (o, o + 16, o + 32, o + 48), (i, i + size, i + 2 * size, i + 3 * size), rows, columns, like
            )
            t += 4
    while t + 2 <= tokens:
        o, i = out + t * 16, x + t * size
        _dots_2((o, o + 16), (i, i + size), rows, columns, like)
        t += 2
    if t < tokens:
        _dots_1((out + t * 16,), (x + t * size,), rows, columns, like)
    if columns % LANES:
        _rest(out, x, tokens, rows, columns)


@njit
def _rest(out, x, tokens, rows, columns):
    """Add the columns behind the last whole vector."""
    for t in range(tokens):
        token, to = floats(x + t * columns * 4, columns), floats(out + t * TILE * 4, TILE)
        for r in range(TILE):
            row = floats(rows[r], columns)
            for k in range(columns // LANES * LANES, columns):
                to[r] += token[k] * row[k]


@njit
def _one_packed(w, matrix, row, last, x, out):
    """Multiply one token with TILE packed rows, without unpacking them to memory."""
    columns = w[matrix + COLUMNS]
    blocks = columns // BLOCK
    a, b, c, d = row, min(row + 1, last), min(row + 2, last), min(row + 3, last)
    size = blocks * 4
    at = w[matrix + SCALES]
    scales = (at + a * size, at + b * size, at + c * size, at + d * size)
    if w[matrix + FORM] == _FOUR:
        at = w[matrix + LEASTS]
        leasts = (at + a * size, at + b * size, at + c * size, at + d * size)
        at, size = w[matrix + NUMBERS], columns // 2
        numbers = (at + a * size, at + b * size, at + c * size, at + d * size)
        _dots_four(out, x, numbers, scales, leasts, blocks)
    else:
        at, size = w[matrix + NUMBERS], columns
        numbers = (at + a * size, at + b * size, at + c * size, at + d * size)
        _dots_eight(out, x, numbers, scales, scales, blocks)


@njit
def store(tile, out, tokens, stride, row):
    """Put a tile into columns row … row + TILE of `out` [tokens, stride]."""
    for t in range(tokens):
        found = floats(tile + t * TILE * 4, TILE)
        to = floats(out + t * stride * 4, stride)
        for i in range(min(TILE, stride - row)):
            to[row + i] = found[i]


@njit
def accumulate(tile, out, tokens, stride, row):
    """Add a tile to columns row … row + TILE of `out` [tokens, stride]."""
    for t in range(tokens):
        found = floats(tile + t * TILE * 4, TILE)
        to = floats(out + t * stride * 4, stride)
        for i in range(min(TILE, stride - row)):
            to[row + i] += found[i]


@njit(fastmath=FAST)
def unpack_row(out, w, matrix, row, columns):
    """Set the floats at address `out` to one row of weights."""
    form = w[matrix + FORM]
    at = w[matrix + NUMBERS]
    blocks = columns // BLOCK
    scales = floats(w[matrix + SCALES] + row * blocks * 4, blocks)
    if form == _FOUR:
        leasts = floats(w[matrix + LEASTS] + row * blocks * 4, blocks)
        at += row * columns // 2
        fetch(at + TILES_AHEAD * TILE * columns // 2, columns // 2)
        for k in range(blocks):
            unpack_four(out + k * BLOCK * 4, at + k * _HALF_BLOCK, scales[k], leasts[k])
    elif form == _EIGHT:
        at += row * columns
        fetch(at + TILES_AHEAD * TILE * columns, columns)
        for k in range(blocks):
            unpack_eight(out + k * BLOCK * 4, at + k * BLOCK, scales[k])
    else:
        _copy(floats(out, columns), halves(at + row * columns * 2, columns), columns)


@njit
def _copy(out, stored, columns):
    for j in range(columns):
        out[j] = widen(stored[j])
