"""Attention over the paged KV pool, read in place: the native half of `engine.cpu.attention`.

A row is one query token. Its keys are in the pool at `slots[request, 0:length]`. Rows are cut into
chunks of CHUNK keys, so that a long context is shared by all threads; the pieces of a row are merged
afterwards. Which keys share a chunk depends on the row alone, so a row's result does not depend
on what else is in the batch.

    keys of a row   |---- CHUNK ----|---- CHUNK ----|-- rest --|      one chunk = one piece
    a unit of work  = one chunk and one block of up to HEADS query heads of one kv head
"""

# ruff: noqa: PLR0917 — kernels take what they touch as arguments
# Intrinsics get their first parameter from numba:
# pyright: reportCallIssue=false

from __future__ import annotations

import numpy as np
from numba import njit

from engine.cpu.simd import (
    F32,
    FAST,
    LOWEST,
    ONE,
    ZERO,
    array,
    done,
    double_of,
    exp,
    floats,
    halves,
    ints,
    take,
    thread_index,
    wait,
    widen,
)

CHUNK = 256
"""Keys of one unit of work."""

HEADS = 8
"""Query heads of one unit of work, at most."""

# Positions in the array of words that describes a call; `engine.cpu.attention` fills them.
# Arrays are addresses; strides and widths count elements.
(
    QUERY, OUT, KEYS, VALUES, KEY_STRIDE, VALUE_STRIDE, KEY_WIDTH, VALUE_WIDTH, SCALE, Q_HEADS, KV_HEADS,
    SLOTS, SLOTS_STRIDE, ROWS, ROW_REQUEST, ROW_LENGTH, ROW_PIECE,
    PIECES, PIECE_ROW, PIECE_BEGIN, PARTS, SUMS, SCORES, COUNTERS, WORDS,
) = range(25)  # fmt: skip


def attend_float(words):
    """Attend in a pool of float32; runs on every thread."""
    _attend(words, floats(words[KEYS], 1))


def attend_bfloat(words):
    """Attend in a pool of bfloat16; queries and results are float32."""
    _attend(words, halves(words[KEYS], 1))


@njit(fastmath=FAST)
def _attend(w, like):
    """Attend piece by piece; when all pieces are there, merge row by row."""
    scores = floats(w[SCORES] + thread_index() * HEADS * CHUNK * 4, HEADS * CHUNK)
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
    """Return how many blocks the query heads of one kv head make."""
    return (w[Q_HEADS] // w[KV_HEADS] + HEADS - 1) // HEADS


@njit(fastmath=FAST)
def attend_piece(w, keys, values, like, scores, unit):
    """Attend from one block of heads to one chunk of keys; the result is not yet divided by its sum."""
    group = w[Q_HEADS] // w[KV_HEADS]
    blocks = head_blocks(w)
    piece, rest = divmod(unit, w[KV_HEADS] * blocks)
    kv_head, block = divmod(rest, blocks)
    row = ints(w[PIECE_ROW], w[PIECES])[piece]
    begin = ints(w[PIECE_BEGIN], w[PIECES])[piece]
    count = min(CHUNK, ints(w[ROW_LENGTH], w[ROWS])[row] - begin)
    request = np.int64(ints(w[ROW_REQUEST], w[ROWS])[row])
    slots = ints(w[SLOTS] + (request * w[SLOTS_STRIDE] + begin) * 4, count)
    head = kv_head * group + block * HEADS
    heads = min(HEADS, group - block * HEADS)
    query = w[QUERY] + (row * w[Q_HEADS] + head) * w[KEY_WIDTH] * 4
    at = piece * w[Q_HEADS] + head
    part = w[PARTS] + at * w[VALUE_WIDTH] * 4
    sums = floats(w[SUMS] + at * 8, heads * 2)
    scale = F32(double_of(w[SCALE]))
    size = like.itemsize
    keys += kv_head * w[KEY_WIDTH] * size
    _score(scores, query, heads, like, slots, count, w[KEY_WIDTH], keys, w[KEY_STRIDE] * size, scale)
    _weights(scores, heads, count, sums)
    values += kv_head * w[VALUE_WIDTH] * size
    _mix(part, scores, heads, like, slots, count, w[VALUE_WIDTH], values, w[VALUE_STRIDE] * size)


@njit(fastmath=FAST)
def merge_row(w, row):
    """Merge the pieces of all heads of a row into the result."""
    width, step = w[VALUE_WIDTH], w[Q_HEADS]
    first = ints(w[ROW_PIECE], w[ROWS] + 1)
    pieces = first[row + 1] - first[row]
    for head in range(w[Q_HEADS]):
        begin = np.int64(first[row]) * step + head
        parts = w[PARTS] + begin * width * 4
        sums = floats(w[SUMS] + begin * 8, pieces * step * 2)
        _merge(floats(w[OUT] + (row * step + head) * width * 4, width), parts, sums, pieces, step, width)


@njit(fastmath=FAST)
def _score(scores, query, heads, like, slots, count, width, base, stride, scale):
    """Set scores[g, j] to scale * query[g]·key[j]. `base`, `stride`: bytes, the pool at this kv head."""
    for j in range(count):
        key = array(like, base + np.int64(slots[j]) * stride, width)
        for g in range(heads):
            scores[g * CHUNK + j] = scale * _dot(floats(query + g * width * 4, width), key, width)


@njit(fastmath=FAST)
def _dot(query, key, width):
    total = ZERO
    for d in range(width):
        total += query[d] * widen(key[d])
    return total


@njit(fastmath=FAST)
def _weights(scores, heads, count, sums):
    """Turn scores into exp(score - greatest); keep per head their sum and the greatest."""
    for g in range(heads):
        greatest = LOWEST
        for j in range(count):
            greatest = max(greatest, scores[g * CHUNK + j])
        total = ZERO
        for j in range(count):
            weight = exp(scores[g * CHUNK + j] - greatest)
            scores[g * CHUNK + j] = weight
            total += weight
        sums[g * 2] = total
        sums[g * 2 + 1] = greatest


@njit(fastmath=FAST)
def _mix(part, scores, heads, like, slots, count, width, base, stride):
    """Set part[g] to the sum over j of scores[g, j] * value[j]."""
    for g in range(heads):
        mixed = floats(part + g * width * 4, width)
        for d in range(width):
            mixed[d] = ZERO
    for j in range(count):
        value = array(like, base + np.int64(slots[j]) * stride, width)
        for g in range(heads):
            _add(floats(part + g * width * 4, width), scores[g * CHUNK + j], value, width)


@njit(fastmath=FAST)
def _add(mixed, weight, value, width):
    for d in range(width):
        mixed[d] += weight * widen(value[d])


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
