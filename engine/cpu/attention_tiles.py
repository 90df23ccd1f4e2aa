"""Attention of some queries to one chunk of keys: scores and mixtures, tile by tile.

Keys and values are read where they lie in the pool, at `base + slots[j] * stride` (bytes, one kv head).
"""

# ruff: noqa: PLR0917 — kernels take what they touch as arguments
# Intrinsics get their first parameter from numba:
# pyright: reportCallIssue=false

from __future__ import annotations

import numpy as np
from numba import njit

from engine.cpu.simd import ZERO, array, floats, ints, widen
from engine.cpu.tiles import LANES, TOGETHER, WIDE, fetch, make_dots, make_mixes
from engine.cpu.tiles import ROWS as TILE

CHUNK = 256
"""Keys of one unit of work."""

ROW = CHUNK + 16
"""Floats from the scores of one query to those of the next: at a distance of a power of two, a tile's rows would push
each other out of the first-level cache."""

_AHEAD = 16
"""How many keys ahead one is asked for."""

_dots_1, _dots_2, _dots_3, _dots_4 = (make_dots(rows) for rows in (1, 2, 3, 4))
_wide_1, _wide_2, _wide_3, _wide_4 = (make_mixes(rows, 4) for rows in (1, 2, 3, 4))
_narrow_1 = make_mixes(1, 1)


@njit
def score(
    scores, places, queries, like, slots_at, count, width, base, stride, values, value_size, value_stride
):
    """Set scores[q, j] to query[q]·key[j]; places: addresses of the queries; base, stride: bytes, at this kv head.

    The next keys, and the values that will be wanted afterwards, are asked for on the way.
    """
    slots = ints(slots_at, count)
    for j in range(0, count, TILE):
        for i in range(j, min(j + TILE, count)):
            fetch(base + np.int64(slots[min(i + _AHEAD, count - 1)]) * stride, width * like.itemsize)
            fetch(values + np.int64(slots[i]) * value_stride, value_size)
        # Behind the last key it is taken again; nobody looks at those scores.
        a = base + np.int64(slots[j]) * stride
        b = base + np.int64(slots[min(j + 1, count - 1)]) * stride
        c = base + np.int64(slots[min(j + 2, count - 1)]) * stride
        d = base + np.int64(slots[min(j + 3, count - 1)]) * stride
        _score_keys(scores + j * 4, places, queries, (a, b, c, d), width, like)


@njit
def _score_keys(out, places, queries, keys, width, like):
    """Score all queries with four keys; out: address, a row of scores is ROW floats."""
    size = ROW * 4
    q = 0
    if TOGETHER == 4:
        while q + 4 <= queries:
            o, x = out + q * size, (places[q], places[q + 1], places[q + 2], places[q + 3])
            _dots_4((o, o + size, o + 2 * size, o + 3 * size), x, keys, width, like)
            q += 4
        if q + 3 == queries:
            o, x = out + q * size, (places[q], places[q + 1], places[q + 2])
            _dots_3((o, o + size, o + 2 * size), x, keys, width, like)
            q += 3
    while q + 2 <= queries:
        o = out + q * size
        _dots_2((o, o + size), (places[q], places[q + 1]), keys, width, like)
        q += 2
    if q < queries:
        _dots_1((out + q * size,), (places[q],), keys, width, like)
    if width % LANES:
        _score_rest(out, places, queries, keys, width, like)


@njit
def _score_rest(out, places, queries, keys, width, like):
    """Add the columns behind the last whole vector."""
    for q in range(queries):
        query, to = floats(places[q], width), floats(out + q * ROW * 4, TILE)
        for j in range(TILE):
            key = array(like, keys[j], width)
            for d in range(width // LANES * LANES, width):
                to[j] += query[d] * widen(key[d])


@njit
def mix(places, scores, queries, like, slots, count, width, base, stride):
    """Set the floats at places[q] to the sum over j of scores[q, j] * value[j]."""
    size = ROW * 4
    step = like.itemsize
    wide = width // WIDE * WIDE
    for d in range(0, wide, WIDE):
        v = base + d * step
        q = 0
        if TOGETHER == 4:
            while q + 4 <= queries:
                p, o = scores + q * size, (places[q] + d * 4, places[q + 1] + d * 4)
                to = (o[0], o[1], places[q + 2] + d * 4, places[q + 3] + d * 4)
                weights = (p, p + size, p + 2 * size, p + 3 * size)
                _wide_4(to, weights, slots, count, v, stride, like)
                q += 4
            if q + 3 == queries:
                p = scores + q * size
                to = (places[q] + d * 4, places[q + 1] + d * 4, places[q + 2] + d * 4)
                _wide_3(to, (p, p + size, p + 2 * size), slots, count, v, stride, like)
                q += 3
        while q + 2 <= queries:
            p = scores + q * size
            _wide_2((places[q] + d * 4, places[q + 1] + d * 4), (p, p + size), slots, count, v, stride, like)
            q += 2
        if q < queries:
            _wide_1((places[q] + d * 4,), (scores + q * size,), slots, count, v, stride, like)
    for q in range(queries):
        for d in range(wide, width // LANES * LANES, LANES):
            _narrow_1((places[q] + d * 4,), (scores + q * size,), slots, count, base + d * step, stride, like)
        if width % LANES:
            _mix_rest(
                places[q], floats(scores + q * size, count), like, ints(slots, count), width, base, stride
            )


@njit
def _mix_rest(out, weights, like, slots, width, base, stride):
    """Mix the columns behind the last whole vector."""
    first = width // LANES * LANES
    mixed = floats(out, width)
    mixed[first:] = ZERO
    for j in range(len(weights)):
        value = array(like, base + np.int64(slots[j]) * stride, width)
        for d in range(first, width):
            mixed[d] += weights[j] * widen(value[d])
