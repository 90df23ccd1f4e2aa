"""Products with packed weights (`engine.cpu.packing`).

A strip of rows of weights is unpacked into scratch memory that stays in the first-level cache, then multiplied with
every token: each weight is read from memory once, whatever the number of tokens, and a few tokens at a time stay in
the first-level cache while they meet the whole strip.
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

STRIP = 2 * TILE
"""Rows that are unpacked before tokens are multiplied with them, at most."""

UNIT = 16
"""Rows of one unit of work."""

_NEAR = 8192
"""Weights that stay in the first-level cache beside some tokens: 32 KB."""

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
        strip = strip_of(w, WEIGHTS)
        for row in range(unit * UNIT, min(rows, (unit + 1) * UNIT), strip):
            found = product(w, WEIGHTS, row, strip, w[INPUT], w[TOKENS], scratch)
            store(found, w[OUTPUT], w[TOKENS], rows, row, strip)
        done(w[COUNTERS], 0)
        unit = take(w[COUNTERS], 0)
    wait(w[COUNTERS], 0, units)


@njit
def strip_of(w, matrix):
    """Return how many rows of a matrix make a strip: STRIP, or TILE where rows are long."""
    return STRIP if STRIP * w[matrix + COLUMNS] <= _NEAR else TILE


@njit
def product(w, matrix, row, strip, tokens_at, tokens, scratch):
    """Multiply rows row … row + strip with every token; return the address of the tiles [strip / TILE, tokens, TILE].

    `matrix`: where the description of the weights begins in `w`. Rows behind the last repeat it. scratch: address of
    STRIP * (columns + tokens) floats.
    """
    columns = w[matrix + COLUMNS]
    form = w[matrix + FORM]
    size = columns * 4
    out = scratch + strip * size
    last = w[matrix + ROWS] - 1
    if tokens == 1 and form in (_FOUR, _EIGHT):
        for i in range(0, strip, TILE):
            _one_packed(w, matrix, min(row + i, last), last, tokens_at, out + i * 4)
        return out
    base = scratch
    if form == _FULL:
        base, last = w[matrix + NUMBERS] + row * size, (last - row) * size
    else:
        for i in range(strip):
            unpack_row(scratch + i * size, w, matrix, min(row + i, last), columns)
        last = strip * size
    like = floats(scratch, 1)
    t = 0
    if TOGETHER == 4:
        while t + 4 <= tokens:
            x = tokens_at + t * size
            for i in range(0, strip, TILE):
                to = out + (i * tokens + t * TILE) * 4
                rows = _tile_of(base, i, size, last)
                xs = (x, x + size, x + 2 * size, x + 3 * size)
                _dots_4((to, to + 16, to + 32, to + 48), xs, rows, columns, like)
            t += 4
    while t + 2 <= tokens:
        x = tokens_at + t * size
        for i in range(0, strip, TILE):
            to = out + (i * tokens + t * TILE) * 4
            _dots_2((to, to + 16), (x, x + size), _tile_of(base, i, size, last), columns, like)
        t += 2
    if t < tokens:
        for i in range(0, strip, TILE):
            to = out + (i * tokens + t * TILE) * 4
            _dots_1((to,), (tokens_at + t * size,), _tile_of(base, i, size, last), columns, like)
    if columns % LANES:
        for i in range(0, strip, TILE):
            _rest(out + i * tokens * 4, tokens_at, tokens, _tile_of(base, i, size, last), columns)
    return out


@njit
def _tile_of(base, first, size, last):
    """Return the addresses of TILE rows of `size` bytes, the row at byte `last` in place of those behind it."""
    at = first * size
    return (
        base + min(at, last),
        base + min(at + size, last),
        base + min(at + 2 * size, last),
        base + min(at + 3 * size, last),
    )


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
def store(tiles, out, tokens, stride, row, strip):
    """Put a strip of tiles into columns row … row + strip of `out` [tokens, stride]."""
    for t in range(tokens):
        to = floats(out + t * stride * 4, stride)
        for i in range(0, min(strip, stride - row), TILE):
            found = floats(tiles + (i * tokens + t * TILE) * 4, TILE)
            for r in range(min(TILE, stride - row - i)):
                to[row + i + r] = found[r]


@njit
def accumulate(tiles, out, tokens, stride, row, strip):
    """Add a strip of tiles to columns row … row + strip of `out` [tokens, stride]."""
    for t in range(tokens):
        to = floats(out + t * stride * 4, stride)
        for i in range(0, min(strip, stride - row), TILE):
            found = floats(tiles + (i * tokens + t * TILE) * 4, TILE)
            for r in range(min(TILE, stride - row - i)):
                to[row + i + r] += found[r]


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
