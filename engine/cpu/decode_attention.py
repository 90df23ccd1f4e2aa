"""One new query a request against its cached keys: natively, or with torch alone."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from engine.cpu import native


class Decoder(Protocol):
    """Attention of a decode step. `plan` once a step, then `attend` once a layer."""

    def plan(self, requests: torch.Tensor, lengths: torch.Tensor) -> None:
        """Take the batch: rows of the slot table, and how many tokens each has, the new one included."""
        ...

    def attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Return [rows, heads, value width].

        query: [rows, heads, key width] · keys, values: [slots, kv heads, width], the pool of the layer.
        """
        ...


class TorchDecoder:
    """Gathers the batch once a layer, padded to its longest row, and attends with one call of torch."""

    def __init__(self, table: torch.Tensor) -> None:
        self._table = table
        self._slots = torch.empty(0)
        self._mask = torch.empty(0)

    def plan(self, requests: torch.Tensor, lengths: torch.Tensor) -> None:
        """See Decoder."""
        longest = int(lengths.max())
        beyond = torch.arange(longest) >= lengths[:, None]
        self._slots = self._table[requests, :longest].long().masked_fill(beyond, 0)
        self._mask = torch.zeros(beyond.shape).masked_fill(beyond, float("-inf"))[:, None, None, :]

    def attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """See Decoder."""
        rows, heads, width = query.shape
        kv_heads = keys.shape[1]
        found_keys = keys[self._slots].to(query.dtype).transpose(1, 2)
        found_values = values[self._slots].to(query.dtype).transpose(1, 2)
        # The query heads of one kv head take the place of queries: no key is repeated for them.
        grouped = query.view(rows, kv_heads, heads // kv_heads, width)
        out = torch.nn.functional.scaled_dot_product_attention(
            grouped, found_keys, found_values, attn_mask=self._mask.to(query.dtype), scale=scale
        )
        return out.reshape(rows, heads, -1)


class NativeDecoder:
    """Runs `attention_kernels` on torch's threads."""

    def __init__(self, table: torch.Tensor, team: native.Team) -> None:
        from engine.cpu import attention_kernels  # noqa: PLC0415 — imports numba

        self._kernels = k = attention_kernels
        self._team = team
        self._code = {
            torch.float32: team.compile(attention_kernels.attend_float),
            torch.bfloat16: team.compile(attention_kernels.attend_bfloat),
        }
        self._places = (k.ROW_REQUEST, k.ROW_LENGTH, k.ROW_PIECE, k.PIECE_ROW, k.PIECE_BEGIN)
        self._table = table
        self._words = np.zeros(attention_kernels.WORDS, np.int64)
        self._batch: tuple[np.ndarray, ...] = ()
        self._scratch: dict[int, torch.Tensor] = {}
        self._counters = np.zeros(2 * native.COUNTER_WORDS, np.int64)
        self._words[attention_kernels.COUNTERS] = self._counters.ctypes.data

    def plan(self, requests: torch.Tensor, lengths: torch.Tensor) -> None:
        """See Decoder."""
        k, words = self._kernels, self._words
        length = lengths.numpy().astype(np.int32)
        pieces = -(-length // k.CHUNK)
        first = np.concatenate(([0], pieces.cumsum())).astype(np.int32)
        row = np.repeat(np.arange(len(length), dtype=np.int32), pieces)
        begin = (np.arange(len(row), dtype=np.int32) - first[row]) * np.int32(k.CHUNK)
        self._batch = (requests.numpy().astype(np.int32), length, first, row, begin)
        for place, array in zip(self._places, self._batch, strict=True):
            words[place] = array.ctypes.data
        words[k.SLOTS], words[k.SLOTS_STRIDE] = self._table.data_ptr(), self._table.stride(0)
        words[k.ROWS], words[k.PIECES] = len(length), len(row)

    def attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """See Decoder."""
        k, words = self._kernels, self._words
        rows, heads, width = query.shape
        value_width, shares, pieces = values.shape[2], native.threads(), int(words[k.PIECES])
        query32 = query.float().contiguous()
        out = torch.empty((rows, heads, value_width))
        words[k.QUERY], words[k.OUT] = query32.data_ptr(), out.data_ptr()
        words[k.KEYS], words[k.VALUES] = keys.data_ptr(), values.data_ptr()
        words[k.KEY_STRIDE], words[k.VALUE_STRIDE] = keys.stride(0), values.stride(0)
        words[k.KEY_WIDTH], words[k.VALUE_WIDTH] = width, value_width
        words[k.Q_HEADS], words[k.KV_HEADS] = heads, keys.shape[1]
        words[k.SCALE] = np.float64(scale).view(np.int64)
        self._reserve(k.SCORES, shares * k.HEADS * k.CHUNK)
        self._reserve(k.PARTS, pieces * heads * value_width)
        self._reserve(k.SUMS, pieces * heads * 2)
        self._counters.fill(0)
        self._team.run(self._code[keys.dtype], words.ctypes.data, shares)
        return out.to(query.dtype)

    def describe_rows(self, words: np.ndarray) -> None:
        """Copy the description of the planned batch into the words of another call."""
        k = self._kernels
        for place in (k.SLOTS, k.SLOTS_STRIDE, k.ROWS, k.PIECES, *self._places):
            words[place] = self._words[place]

    def _reserve(self, place: int, count: int) -> None:
        """Give the kernels at least `count` floats of scratch memory."""
        held = self._scratch.get(place)
        if held is None or held.numel() < count:
            self._scratch[place] = held = torch.empty(count)
            self._words[place] = held.data_ptr()
