"""Attention over the paged KV pool, read in place: the native half of `engine.cpu.attention`.

A row is one query token. Its keys are in the pool at `slots[request, 0:length]`. Neighbouring rows of one request
make a block: they read the same keys, each up to its own length. The keys of a block are cut into chunks of CHUNK,
so that a long context is shared by all threads; the pieces of a row are merged afterwards. Which keys share a chunk
depends on the row alone, and sums are added up in one order (`engine.cpu.tiles`): a row's result does not depend
on what else is in the batch.

    keys of a block |---- CHUNK ----|---- CHUNK ----|-- rest --|      one chunk = one piece
    a unit of work  = one chunk, the rows of a block, as many query heads of one kv head as make ALONE queries
"""

# ruff: noqa: PLR0917 — kernels take what they touch as arguments
# Intrinsics get their first parameter from numba:
# pyright: reportCallIssue=false

from __future__ import annotations

import numpy as np
from numba import njit

from engine.cpu.attention_tiles import CHUNK, ROW, mix, score
from engine.cpu.exponentials import weigh
from engine.cpu.simd import (
    F32,
    FAST,
    LOWEST,
    ONE,
    ZERO,
    done,
    double_of,
    exp,
    floats,
    halves,
    ints,
    longs,
    take,
    thread_index,
    wait,
)

ALONE = 64
"""Queries of one unit of work, at most: rows of its block times query heads."""

TOKENS = 8
"""Rows of one block, where it is not known how many query heads share a kv head."""

SCRATCH = ALONE * (ROW + 4)
"""Floats of scratch memory of one thread: scores and addresses."""

# Positions in the array of words that describes a call; `engine.cpu.attention` fills them.
# Arrays are addresses; strides and widths count elements. Of a piece: its block's first row and how many it has, and
# its first key. ROW_PIECE: where the pieces of a row begin in PARTS.
(
    QUERY, OUT, KEYS, VALUES, KEY_STRIDE, VALUE_STRIDE, KEY_WIDTH, VALUE_WIDTH, SCALE, Q_HEADS, KV_HEADS,
    SLOTS, SLOTS_STRIDE, ROWS, ROW_REQUEST, ROW_LENGTH, ROW_PIECE, UNIT_HEADS,
    PIECES, PIECE_ROW, PIECE_ROWS, PIECE_BEGIN, PARTS, SUMS, SCORES, COUNTERS, WORDS,
) = range(27)  # fmt: skip


def attend_float(words):
    """Attend in a pool of float32; runs on every thread."""
    _attend(words, floats(words[KEYS], 1))


def attend_bfloat(words):
    """Attend in a pool of bfloat16; queries and results are float32."""
    _attend(words, halves(words[KEYS], 1))


@njit(fastmath=FAST)
def _attend(w, like):
    """Attend piece by piece; when all pieces are there, merge row by row."""
    scores = w[SCORES] + thread_index() * SCRATCH * 4
    units = w[PIECES] * w[KV_HEADS] * head_blocks(w)
    unit = take(w[COUNTERS], 0)
    while unit < units:
        attend_piece(w, w[KEYS], w[VALUES], like, scores, unit)
        done(w[COUNTERS], 0)
        unit = take(w[COUNTERS], 0)
    wait(w[COUNTERS], 0, units)
    row = take(w[COUNTERS], 1)
    while row < w[ROWS]:
        merge_row(w, row)
        row = take(w[COUNTERS], 1)


@njit
def head_blocks(w):
    """Return how many units the query heads of one kv head make."""
    return (w[Q_HEADS] // w[KV_HEADS] + w[UNIT_HEADS] - 1) // w[UNIT_HEADS]


@njit(fastmath=FAST)
def attend_piece(w, keys, values, like, scores, unit):
    """Attend from some heads of a block's rows to one chunk of keys; results are not yet divided by their sums.

    keys, values: addresses of the pool · like: an array of its type · scores: address of SCRATCH floats
    """
    group = w[Q_HEADS] // w[KV_HEADS]
    blocks = head_blocks(w)
    piece, rest = divmod(unit, w[KV_HEADS] * blocks)
    kv_head, block = divmod(rest, blocks)
    row = np.int64(ints(w[PIECE_ROW], w[PIECES])[piece])
    rows = np.int64(ints(w[PIECE_ROWS], w[PIECES])[piece])
    begin = np.int64(ints(w[PIECE_BEGIN], w[PIECES])[piece])
    lengths = ints(w[ROW_LENGTH], w[ROWS])
    count = min(CHUNK, np.int64(lengths[row + rows - 1]) - begin)
    request = np.int64(ints(w[ROW_REQUEST], w[ROWS])[row])
    slots = w[SLOTS] + (request * w[SLOTS_STRIDE] + begin) * 4
    heads = min(w[UNIT_HEADS], group - block * w[UNIT_HEADS])
    queries = rows * heads
    places = longs(scores + ALONE * ROW * 4, ALONE * 2)
    scale = F32(double_of(w[SCALE]))
    for q in range(queries):
        r, g = divmod(q, heads)
        head = kv_head * group + block * w[UNIT_HEADS] + g
        at = (np.int64(ints(w[ROW_PIECE], w[ROWS])[row + r]) + begin // CHUNK) * w[Q_HEADS] + head
        places[q] = w[QUERY] + ((row + r) * w[Q_HEADS] + head) * w[KEY_WIDTH] * 4
        places[ALONE + q] = at
    size = like.itemsize
    keys += kv_head * w[KEY_WIDTH] * size
    values += kv_head * w[VALUE_WIDTH] * size
    score(
        scores, places, queries, like, slots, count, w[KEY_WIDTH], keys, w[KEY_STRIDE] * size,
        values, w[VALUE_WIDTH] * size, w[VALUE_STRIDE] * size,
    )  # fmt: skip
    for q in range(queries):
        at = places[ALONE + q]
        seen = min(count, np.int64(lengths[row + q // heads]) - begin)
        weigh(scores + q * ROW * 4, seen, count, scale, w[SUMS] + at * 8)
        places[q] = w[PARTS] + at * w[VALUE_WIDTH] * 4
    mix(places, scores, queries, like, slots, count, w[VALUE_WIDTH], values, w[VALUE_STRIDE] * size)


@njit(fastmath=FAST)
def merge_row(w, row):
    """Merge the pieces of all heads of a row into the result."""
    width, step = w[VALUE_WIDTH], w[Q_HEADS]
    first = ints(w[ROW_PIECE], w[ROWS])
    pieces = (np.int64(ints(w[ROW_LENGTH], w[ROWS])[row]) + CHUNK - 1) // CHUNK
    for head in range(w[Q_HEADS]):
        begin = np.int64(first[row]) * step + head
        parts = w[PARTS] + begin * width * 4
        sums = floats(w[SUMS] + begin * 8, pieces * step * 2)
        _merge(floats(w[OUT] + (row * step + head) * width * 4, width), parts, sums, pieces, step, width)


@njit(fastmath=FAST)
def _add(mixed, weight, value, width):
    for d in range(width):
        mixed[d] += weight * value[d]


@njit(fastmath=FAST)
def _merge(out, parts, sums, pieces, step, width):
    """Set out to the weighted mean of the pieces of one row and head. `step`: heads between two pieces."""
    greatest = LOWEST
    for c in range(pieces):
        greatest = max(greatest, sums[c * step * 2 + 1])
    total = ZERO
    for d in range(width):
        out[d] = ZERO
    for c in range(pieces):
        weight = exp(sums[c * step * 2 + 1] - greatest)
        total += weight * sums[c * step * 2]
        _add(out, weight, floats(parts + c * step * width * 4, width), width)
    inverse = ONE / total
    for d in range(width):
        out[d] *= inverse
