"""Products with packed weights (`engine.cpu.packing`), for few tokens at a time.

Four rows of weights at a time are unpacked into a scratch row that stays in the first-level cache, then
multiplied with every token: each weight is read from memory once, whatever the number of tokens.
"""

# ruff: noqa: PLR0917 — kernels take what they touch as arguments
# Intrinsics get their first parameter from numba:
# pyright: reportCallIssue=false

from __future__ import annotations

from numba import njit

from engine.cpu.packing import BLOCK, Form
from engine.cpu.simd import (
    FAST,
    ZERO,
    done,
    floats,
    halves,
    take,
    thread_index,
    unpack_eight,
    unpack_four,
    vector_registers,
    wait,
    widen,
)

TILE = 4
"""Rows that are unpacked and multiplied together."""

UNIT = 16
"""Rows of one unit of work."""

# Positions in the description of a matrix, MATRIX words long: addresses, form, and sizes in weights.
NUMBERS, SCALES, LEASTS, FORM, ROWS, COLUMNS, MATRIX = range(7)

# Positions in the words of `multiply`.
INPUT, OUTPUT, TOKENS, SCRATCH, SCRATCH_SIZE, COUNTERS, WEIGHTS = range(7)
MULTIPLY_WORDS = WEIGHTS + MATRIX

_TOGETHER = 4 if vector_registers() >= 32 else 2
"""Tokens multiplied together: their sums with TILE rows must stay in registers."""

_HALF_BLOCK = BLOCK // 2
_FOUR, _EIGHT, _SIXTEEN = int(Form.FOUR), int(Form.EIGHT), int(Form.SIXTEEN)


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


@njit(fastmath=FAST)
def product(w, matrix, row, tokens_at, tokens, scratch):
    """Multiply rows row … row + TILE with every token; return the address of the tile [tokens, TILE].

    `matrix`: where the description of the weights begins in `w`. Rows behind the last repeat it.
    """
    columns = w[matrix + COLUMNS]
    for i in range(TILE):
        at = min(row + i, w[matrix + ROWS] - 1)
        unpack_row(scratch + i * columns * 4, w, matrix, at, columns)
    a = floats(scratch, columns)
    b = floats(scratch + columns * 4, columns)
    c = floats(scratch + columns * 8, columns)
    d = floats(scratch + columns * 12, columns)
    out = scratch + columns * 16
    whole = tokens // _TOGETHER * _TOGETHER
    for t in range(0, whole, _TOGETHER):
        if _TOGETHER == 4:
            _dots_4(out + t * 16, tokens_at + t * columns * 4, columns, a, b, c, d)
        else:
            _dots_2(out + t * 16, tokens_at + t * columns * 4, columns, a, b, c, d)
    for t in range(whole, tokens):
        _dots_1(out + t * 16, tokens_at + t * columns * 4, columns, a, b, c, d)
    return out


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
        for k in range(blocks):
            unpack_four(out + k * BLOCK * 4, at + k * _HALF_BLOCK, scales[k], leasts[k])
    elif form == _EIGHT:
        at += row * columns
        for k in range(blocks):
            unpack_eight(out + k * BLOCK * 4, at + k * BLOCK, scales[k])
            unpack_eight(out + k * BLOCK * 4 + 64, at + k * BLOCK + 16, scales[k])
    elif form == _SIXTEEN:
        _copy(floats(out, columns), halves(at + row * columns * 2, columns), columns)
    else:
        _copy(floats(out, columns), floats(at + row * columns * 4, columns), columns)


@njit
def _copy(out, stored, columns):
    for j in range(columns):
        out[j] = widen(stored[j])


@njit(fastmath=FAST)
def _dots_1(out, token, columns, a, b, c, d):
    """Set out[0:4] to the products of one token with four rows."""
    x = floats(token, columns)
    a0 = b0 = c0 = d0 = ZERO
    for k in range(columns):
        a0 += x[k] * a[k]
        b0 += x[k] * b[k]
        c0 += x[k] * c[k]
        d0 += x[k] * d[k]
    to = floats(out, TILE)
    to[0], to[1], to[2], to[3] = a0, b0, c0, d0


@njit(fastmath=FAST)
def _dots_2(out, tokens, columns, a, b, c, d):
    """Set out[0:8] to the products of two tokens with four rows."""
    x = floats(tokens, columns)
    y = floats(tokens + columns * 4, columns)
    a0 = b0 = c0 = d0 = a1 = b1 = c1 = d1 = ZERO
    for k in range(columns):
        a0 += x[k] * a[k]
        b0 += x[k] * b[k]
        c0 += x[k] * c[k]
        d0 += x[k] * d[k]
        a1 += y[k] * a[k]
        b1 += y[k] * b[k]
        c1 += y[k] * c[k]
        d1 += y[k] * d[k]
    to = floats(out, 2 * TILE)
    to[0], to[1], to[2], to[3] = a0, b0, c0, d0
    to[4], to[5], to[6], to[7] = a1, b1, c1, d1


@njit(fastmath=FAST)
def _dots_4(out, tokens, columns, a, b, c, d):
    """Set out[0:16] to the products of four tokens with four rows: 16 sums that stay in registers."""
    x = floats(tokens, columns)
    y = floats(tokens + columns * 4, columns)
    z = floats(tokens + columns * 8, columns)
    u = floats(tokens + columns * 12, columns)
    a0 = b0 = c0 = d0 = a1 = b1 = c1 = d1 = ZERO
    a2 = b2 = c2 = d2 = a3 = b3 = c3 = d3 = ZERO
    for k in range(columns):
        a0 += x[k] * a[k]
        b0 += x[k] * b[k]
        c0 += x[k] * c[k]
        d0 += x[k] * d[k]
        a1 += y[k] * a[k]
        b1 += y[k] * b[k]
        c1 += y[k] * c[k]
        d1 += y[k] * d[k]
        a2 += z[k] * a[k]
        b2 += z[k] * b[k]
        c2 += z[k] * c[k]
        d2 += z[k] * d[k]
        a3 += u[k] * a[k]
        b3 += u[k] * b[k]
        c3 += u[k] * c[k]
        d3 += u[k] * d[k]
    to = floats(out, 4 * TILE)
    to[0], to[1], to[2], to[3] = a0, b0, c0, d0
    to[4], to[5], to[6], to[7] = a1, b1, c1, d1
    to[8], to[9], to[10], to[11] = a2, b2, c2, d2
    to[12], to[13], to[14], to[15] = a3, b3, c3, d3
