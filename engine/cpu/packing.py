"""Weights in fewer bytes, exactly: what a decode step costs is how many bytes of weights it reads.

A model that was dequantised from a file of 4- or 8-bit blocks (GGUF) holds, in float32, only numbers
`scale * q + least`. `pack` looks for such blocks and keeps the integers; it returns a form only after
checking that unpacking gives back every weight bit for bit, so results do not change beyond the order of sums.
bfloat16 checkpoints that are served in float32 are found in the same way. What fits nothing stays as it is, or is
rounded to 8 bits if ENGINE_WEIGHTS asks for it.

    FOUR     32 weights a block: 16 bytes (weight j below weight j + 16), float32 scale and least
    EIGHT    32 weights a block: 32 signed bytes, float32 scale
    SIXTEEN  bfloat16
    FULL     float32
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import IntEnum

import torch

VARIABLE = "ENGINE_WEIGHTS"
"""Environment variable: `exact` (the default) changes no weight, `int8` rounds those that fit no smaller form."""

BLOCK = 32
"""Weights that share a scale."""

_ROWS = 256
"""Rows that are looked at together: what is computed on the way stays in the cache."""

_TINY = 1e-30
"""In place of a scale of 0, which a block of equal weights has."""


class Form(IntEnum):
    """How weights are stored; the values are known to `engine.cpu.linear_kernels`."""

    FULL = 0
    SIXTEEN = 1
    EIGHT = 2
    FOUR = 3


@dataclass(frozen=True, slots=True)
class Packed:
    """A matrix of `rows` x `columns`. `scales` and `leasts`: [rows, columns / BLOCK], empty where unused."""

    form: Form
    rows: int
    columns: int
    numbers: torch.Tensor
    scales: torch.Tensor
    leasts: torch.Tensor

    @property
    def nbytes(self) -> int:
        """Bytes that one pass over the matrix reads."""
        return sum(part.nbytes for part in (self.numbers, self.scales, self.leasts))


def pack(weight: torch.Tensor) -> Packed:
    """Return the smallest form that holds `weight` [rows, columns] exactly; `weight` is not modified.

    A FULL form shares its memory with `weight`.
    """
    wide = weight.detach().float()
    for form in (Form.FOUR, Form.EIGHT):
        if wide.shape[1] % BLOCK == 0 and (packed := _blocked(form, wide)) is not None:
            return packed
    if weight.dtype == torch.bfloat16 or torch.equal(wide.bfloat16().float(), wide):
        return _plain(Form.SIXTEEN, weight.detach().bfloat16())
    return _plain(Form.FULL, wide)


def pack_chosen(weight: torch.Tensor) -> Packed:
    """Return `weight` packed as ENGINE_WEIGHTS says; where that rounds, `weight` is set to what it was rounded to.

    Raises ValueError for a choice that does not exist.
    """
    choice = os.environ.get(VARIABLE) or "exact"
    if choice not in ("exact", "int8"):
        raise ValueError(f"{VARIABLE}: expected exact or int8, got {choice!r}")
    packed = pack(weight)
    if choice == "exact" or packed.form not in (Form.FULL, Form.SIXTEEN) or weight.shape[1] % BLOCK:
        return packed
    rounded = round_to_eight(weight)
    weight.data.copy_(unpack(rounded))  # the parts of the engine that do not unpack see the same numbers
    return rounded


def round_to_eight(weight: torch.Tensor) -> Packed:
    """Return the nearest EIGHT to `weight` [rows, columns], the columns a multiple of BLOCK."""
    parts = []
    for rows in weight.detach().float().split(_ROWS):
        blocks = rows.reshape(rows.shape[0], -1, BLOCK)
        scales = (blocks.abs().amax(dim=-1) / 127).half().float()
        parts.append((_nearest(blocks, scales, 127).to(torch.int8), scales))
    numbers, scales = (torch.cat(part) for part in zip(*parts, strict=True))
    return Packed(Form.EIGHT, weight.shape[0], weight.shape[1], numbers, scales, scales.new_empty(0))


def unpack(packed: Packed) -> torch.Tensor:
    """Return the float32 matrix."""
    shape = (packed.rows, -1, BLOCK)
    if packed.form == Form.FOUR:
        pairs = packed.numbers.view(packed.rows, -1, BLOCK // 2)
        numbers = torch.cat((pairs & 15, pairs >> 4), dim=-1).float()
        wide = numbers * packed.scales[..., None] + packed.leasts[..., None]
    elif packed.form == Form.EIGHT:
        wide = packed.numbers.view(shape).float() * packed.scales[..., None]
    else:
        wide = packed.numbers.float()
    return wide.reshape(packed.rows, packed.columns)


def _blocked(form: Form, wide: torch.Tensor) -> Packed | None:
    """Return `wide` in blocks, or None as soon as a block does not fit."""
    attempt = _four if form == Form.FOUR else _eight
    pieces = []
    for rows in wide.split(_ROWS):
        piece = attempt(rows.reshape(rows.shape[0], -1, BLOCK))
        if piece is None:
            return None
        pieces.append(piece)
    numbers, scales, leasts = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    return Packed(form, wide.shape[0], wide.shape[1], numbers, scales, leasts)


def _four(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
    least, greatest = blocks.aminmax(dim=-1)
    scales = ((greatest - least) / 15).half().float()  # the file keeps scales as float16
    numbers = (blocks - least[..., None]).div_(scales.clamp(min=_TINY)[..., None]).round_().clamp_(0, 15)
    if not torch.equal(torch.addcmul(least[..., None], numbers, scales[..., None]), blocks):
        return None
    low, high = numbers.to(torch.uint8).split(BLOCK // 2, dim=-1)
    return low | (high << 4), scales, least


def _eight(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
    scales = (blocks.abs().amax(dim=-1) / 127).half().float()
    numbers = _nearest(blocks, scales, 127)
    if not torch.equal(numbers * scales[..., None], blocks):
        return None
    return numbers.to(torch.int8), scales, scales.new_empty(0)


def _nearest(blocks: torch.Tensor, scales: torch.Tensor, most: int) -> torch.Tensor:
    """Return the whole numbers, up to ±most, that are nearest to blocks / scales."""
    return (blocks / scales.clamp(min=_TINY)[..., None]).round_().clamp_(-most, most)


def _plain(form: Form, numbers: torch.Tensor) -> Packed:
    none = torch.empty(0)
    return Packed(form, numbers.shape[0], numbers.shape[1], numbers.contiguous(), none, none)
