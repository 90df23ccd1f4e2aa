"""All layers of a Llama model for a few tokens, as one native call.

SGLang runs a layer as some ten torch operators; at one token a step they spend more time in calling than in
computing. Here the whole stack of layers is one kernel. Its phases follow each other through counters
(`take`, `done`, `wait`): a phase begins when the last unit of the one before is finished.

    of each layer   phase 0  norm, q k v           phase 4  output projection, added to the stream
                    phase 1  rotate; keys and      phase 5  norm, gate and up, silu(gate) * up
                             values to the pool    phase 6  down projection, added to the stream
                    phase 2  attention, in pieces
                    phase 3  pieces merged

The words of a call are those of `attention_kernels`, then the ones below, then LAYER words for each layer.
"""

# Intrinsics get their first parameter from numba:
# pyright: reportCallIssue=false

from __future__ import annotations

import numpy as np
from numba import njit

from engine.cpu import attention_kernels as attention
from engine.cpu.attention_kernels import attend_piece, head_blocks, merge_row
from engine.cpu.exponentials import silu
from engine.cpu.linear_kernels import (
    COLUMNS,
    MATRIX,
    ROWS,
    STRIP,
    UNIT,
    accumulate,
    product,
    store,
    strip_of,
)
from engine.cpu.simd import (
    F32,
    FAST,
    ONE,
    ZERO,
    done,
    double_of,
    floats,
    longs,
    take,
    thread_index,
    wait,
)

# Arrays are addresses; sizes count floats. STREAM [tokens, hidden] goes in and comes out, without the last norm.
(
    STREAM, QKV, MIXED, GATED, SCRATCH, SCRATCH_SIZE, TOKENS, HIDDEN, INNER, LAYERS, EPSILON,
    ROTATION, POSITIONS, PLACES,
) = range(attention.WORDS, attention.WORDS + 14)  # fmt: skip
HEADER = PLACES + 1

# Of each layer: two norms and the pool's keys and values as addresses, then four matrices.
NORM_ATTENTION, NORM_MLP, LAYER_KEYS, LAYER_VALUES, W_QKV = range(5)
W_OUT = W_QKV + MATRIX
W_GATE_UP = W_OUT + MATRIX
W_DOWN = W_GATE_UP + MATRIX
LAYER = W_DOWN + MATRIX

PHASES = 7


def forward(words):
    """Run all layers; on every thread."""
    _forward(words)


@njit(fastmath=FAST)
def _forward(w):
    mine = w[SCRATCH] + thread_index() * w[SCRATCH_SIZE] * 4
    for layer in range(w[LAYERS]):
        at = HEADER + layer * LAYER
        phase = layer * PHASES
        _project(w, at, phase, mine)
        _place(w, at, phase + 1)
        _attend(w, at, phase + 2, mine)
        _merge(w, phase + 3)
        _add(w, at + W_OUT, phase + 4, w[MIXED], mine)
        _gate(w, at, phase + 5, mine)
        _add(w, at + W_DOWN, phase + 6, w[GATED], mine)


@njit(fastmath=FAST)
def _project(w, at, phase, mine):
    """Set QKV to the projections of the normed stream."""
    counters, tokens = w[attention.COUNTERS], w[TOKENS]
    rows, strip = w[at + W_QKV + ROWS], strip_of(w, at + W_QKV)
    units = (rows + UNIT - 1) // UNIT
    unit = take(counters, phase)
    if unit < units:
        _norm(w, w[at + NORM_ATTENTION], mine)
    while unit < units:
        for row in range(unit * UNIT, min(rows, (unit + 1) * UNIT), strip):
            found = product(w, at + W_QKV, row, strip, mine, tokens, mine + tokens * w[HIDDEN] * 4)
            store(found, w[QKV], tokens, rows, row, strip)
        done(counters, phase)
        unit = take(counters, phase)
    wait(counters, phase, units)


@njit(fastmath=FAST)
def _place(w, at, phase):
    """Rotate queries and keys; put keys and values into the pool."""
    counters, tokens = w[attention.COUNTERS], w[TOKENS]
    heads, kv_heads, width = w[attention.Q_HEADS], w[attention.KV_HEADS], w[attention.KEY_WIDTH]
    token = take(counters, phase)
    while token < tokens:
        place = longs(w[PLACES], tokens)[token]
        rotation = floats(w[ROTATION] + longs(w[POSITIONS], tokens)[token] * width * 4, width)
        qkv = w[QKV] + token * w[at + W_QKV + ROWS] * 4
        to = w[attention.QUERY] + token * heads * width * 4
        for head in range(heads):
            _rotate(
                floats(to + head * width * 4, width), floats(qkv + head * width * 4, width), rotation, width
            )
        qkv += heads * width * 4
        to = w[at + LAYER_KEYS] + place * w[attention.KEY_STRIDE] * 4
        for head in range(kv_heads):
            _rotate(
                floats(to + head * width * 4, width), floats(qkv + head * width * 4, width), rotation, width
            )
        qkv += kv_heads * width * 4
        values = floats(w[at + LAYER_VALUES] + place * w[attention.VALUE_STRIDE] * 4, kv_heads * width)
        found = floats(qkv, kv_heads * width)
        for d in range(kv_heads * width):
            values[d] = found[d]
        done(counters, phase)
        token = take(counters, phase)
    wait(counters, phase, tokens)


@njit(fastmath=FAST)
def _rotate(out, head, rotation, width):
    """Rotate one head by halves. rotation: cosines, then sines, of the position."""
    half = width // 2
    for d in range(half):
        first, second = head[d], head[d + half]
        out[d] = first * rotation[d] - second * rotation[d + half]
        out[d + half] = second * rotation[d] + first * rotation[d + half]


@njit(fastmath=FAST)
def _attend(w, at, phase, mine):
    counters = w[attention.COUNTERS]
    like = floats(w[at + LAYER_KEYS], 1)
    units = w[attention.PIECES] * w[attention.KV_HEADS] * head_blocks(w)
    unit = take(counters, phase)
    while unit < units:
        attend_piece(w, w[at + LAYER_KEYS], w[at + LAYER_VALUES], like, mine, unit)
        done(counters, phase)
        unit = take(counters, phase)
    wait(counters, phase, units)


@njit(fastmath=FAST)
def _merge(w, phase):
    counters, rows = w[attention.COUNTERS], w[attention.ROWS]
    row = take(counters, phase)
    while row < rows:
        merge_row(w, row)
        done(counters, phase)
        row = take(counters, phase)
    wait(counters, phase, rows)


@njit(fastmath=FAST)
def _add(w, matrix, phase, source, mine):
    """Add a projection of `source` to the stream."""
    counters, tokens = w[attention.COUNTERS], w[TOKENS]
    rows, strip = w[matrix + ROWS], strip_of(w, matrix)
    units = (rows + UNIT - 1) // UNIT
    unit = take(counters, phase)
    while unit < units:
        for row in range(unit * UNIT, min(rows, (unit + 1) * UNIT), strip):
            found = product(w, matrix, row, strip, source, tokens, mine)
            accumulate(found, w[STREAM], tokens, rows, row, strip)
        done(counters, phase)
        unit = take(counters, phase)
    wait(counters, phase, units)


@njit(fastmath=FAST)
def _gate(w, at, phase, mine):
    """Set GATED to silu(gate) * up of the normed stream."""
    counters, tokens, inner = w[attention.COUNTERS], w[TOKENS], w[INNER]
    units = (inner + UNIT - 1) // UNIT
    matrix = at + W_GATE_UP
    size = tokens * w[HIDDEN] * 4
    other = STRIP * (w[matrix + COLUMNS] + tokens) * 4
    strip = strip_of(w, matrix)
    unit = take(counters, phase)
    if unit < units:
        _norm(w, w[at + NORM_MLP], mine)
    while unit < units:
        for row in range(unit * UNIT, min(inner, (unit + 1) * UNIT), strip):
            gate = product(w, matrix, row, strip, mine, tokens, mine + size)
            up = product(w, matrix, inner + row, strip, mine, tokens, mine + size + other)
            silu(gate, up, tokens * strip)
            store(gate, w[GATED], tokens, inner, row, strip)
        done(counters, phase)
        unit = take(counters, phase)
    wait(counters, phase, units)


@njit(fastmath=FAST)
def _norm(w, weight_at, out_at):
    """Set `out` [tokens, hidden] to the root-mean-square norm of the stream."""
    hidden = w[HIDDEN]
    weight = floats(weight_at, hidden)
    for token in range(w[TOKENS]):
        x = floats(w[STREAM] + token * hidden * 4, hidden)
        out = floats(out_at + token * hidden * 4, hidden)
        total = ZERO
        for d in range(hidden):
            total += x[d] * x[d]
        factor = ONE / np.sqrt(total / F32(hidden) + F32(double_of(w[EPSILON])))
        for d in range(hidden):
            out[d] = x[d] * factor * weight[d]
