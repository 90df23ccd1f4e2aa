"""Attention of many queries to one chunk of keys: what `attention_tiles` does, equal to the bit.

Keys and values are brought from the pool a block at a time, once for all queries, into memory that stays in the
first-level cache: keys turned (`score_tiles`), values side by side. Both widths must be multiples of LANES.
"""

# ruff: noqa: PLR0917 — kernels take what they touch as arguments
# Intrinsics get their first parameter from numba:
# pyright: reportCallIssue=false

from __future__ import annotations

import numpy as np
from numba import njit

from engine.cpu.attention_tiles import CHUNK
from engine.cpu.score_tiles import KEYS, make_scores, make_turn
from engine.cpu.simd import array, floats, ints, widen
from engine.cpu.tiles import LANES, TOGETHER, WIDE, fetch, make_mixes

WIDEST = 640
"""Widest key or value that is taken."""

BLOCK = WIDEST * KEYS
"""Floats of a block, at most."""

_NEAR = 4096
"""Floats of a block where the width allows it: 16 KB."""

_turn = make_turn()
_scores_2, _scores_4 = make_scores(2), make_scores(4)
_wide_2, _wide_4 = make_mixes(2, 4, scattered=False), make_mixes(4, 4, scattered=False)
_narrow_1 = make_mixes(1, 1, scattered=False)


@njit
def is_shared(queries, key_width, value_width):
    """Say whether this is worth it, and possible."""
    return (
        queries >= LEAST
        and key_width % LANES == 0
        and value_width % LANES == 0
        and max(key_width, value_width) <= WIDEST
    )


LEAST = 2 * TOGETHER
"""Queries for which keys are worth turning, at least."""


@njit
def _block(width):
    """Return how many keys make a block: whole tiles, that divide a chunk."""
    keys = CHUNK
    while keys > KEYS and keys * width > _NEAR:
        keys //= 2
    return keys


@njit
def score_shared(
    scores, places, queries, like, slots, count, width, base, stride, values, value_size, value_stride, block
):
    """See `attention_tiles.score`; block: address of BLOCK floats."""
    keys = _block(width)
    tiles = (queries + TOGETHER - 1) // TOGETHER
    ahead = (keys + tiles - 1) // tiles
    for first in range(0, count, keys):
        some = min(keys, count - first)
        for j in range(0, some, LANES):
            _turn(block + j * 4, slots + (first + j) * 4, some - j, base, stride, keys * 4, width, like)
        for tile in range(tiles):
            _fetch(slots, first + keys + tile * ahead, ahead, count, base, stride, width * like.itemsize)
            _fetch(slots, first + tile * ahead, ahead, count, values, value_stride, value_size)
            q = tile * TOGETHER
            for j in range(0, some, KEYS):
                _score(scores + (first + j) * 4, places, q, queries - 1, block + j * 4, keys * 4, width)


@njit
def _fetch(slots_at, first, some, count, base, stride, size):
    """Ask for some keys or values of the chunk, from the first."""
    slots = ints(slots_at, count)
    for j in range(first, min(first + some, count)):
        fetch(base + np.int64(slots[j]) * stride, size)


@njit
def _score(out, places, q, last, turned, stride, width):
    """Score TOGETHER queries from the q-th with KEYS keys; behind the last query it is taken again."""
    a, b = q, min(q + 1, last)
    size = CHUNK * 4
    if TOGETHER == 4:
        c, d = min(q + 2, last), min(q + 3, last)
        outs = (out + a * size, out + b * size, out + c * size, out + d * size)
        _scores_4(outs, (places[a], places[b], places[c], places[d]), turned, stride, width)
    else:
        _scores_2((out + a * size, out + b * size), (places[a], places[b]), turned, stride, width)


@njit
def mix_shared(places, scores, queries, like, slots, count, width, base, stride, block):
    """See `attention_tiles.mix`; block: address of BLOCK floats."""
    values = _block(width)
    for first in range(0, count, values):
        some = min(values, count - first)
        _bring(block, slots + first * 4, some, base, stride, width, like)
        goes_on = min(first, 1)
        for d in range(0, width // WIDE * WIDE, WIDE):
            for q in range(0, queries, TOGETHER):
                _mix(places, scores + first * 4, q, queries - 1, some, block, d, width, goes_on)
        for d in range(width // WIDE * WIDE, width, LANES):
            for q in range(queries):
                weights = scores + (first + q * CHUNK) * 4
                at = block + d * 4
                _narrow_1((places[q] + d * 4,), (weights,), 0, some, at, width * 4, floats(block, 1), goes_on)


@njit
def _mix(places, scores, q, last, count, block, d, width, goes_on):
    """Mix WIDE columns from the d-th for TOGETHER queries from the q-th."""
    a, b = q, min(q + 1, last)
    size = CHUNK * 4
    at, stride, like = block + d * 4, width * 4, floats(block, 1)
    if TOGETHER == 4:
        c, e = min(q + 2, last), min(q + 3, last)
        outs = (places[a] + d * 4, places[b] + d * 4, places[c] + d * 4, places[e] + d * 4)
        weights = (scores + a * size, scores + b * size, scores + c * size, scores + e * size)
        _wide_4(outs, weights, 0, count, at, stride, like, goes_on)
    else:
        outs = (places[a] + d * 4, places[b] + d * 4)
        _wide_2(outs, (scores + a * size, scores + b * size), 0, count, at, stride, like, goes_on)


@njit
def _bring(block, slots_at, count, base, stride, width, like):
    """Set the block [count, width] to values from the pool, widened."""
    slots = ints(slots_at, count)
    for j in range(count):
        found, to = (
            array(like, base + np.int64(slots[j]) * stride, width),
            floats(block + j * width * 4, width),
        )
        for d in range(width):
            to[d] = widen(found[d])
