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

    def __init__(self, table: torch.Tensor, team: native.Team, group: int | None = None) -> None:
        """table: slots of each request · group: query heads that share a kv head, where that is known."""
        from engine.cpu import attention_kernels  # noqa: PLC0415 — imports numba

        most = attention_kernels.ALONE
        self._most_rows = max(1, most // group) if group else attention_kernels.TOKENS
        self._kernels = k = attention_kernels
        self._team = team
        # Compiled when the first batch comes: a pool has one type.
        self._source = {
            torch.float32: attention_kernels.attend_float,
            torch.bfloat16: attention_kernels.attend_bfloat,
        }
        self._places = (
            k.ROW_REQUEST, k.ROW_LENGTH, k.ROW_PIECE, k.PIECE_ROW, k.PIECE_ROWS, k.PIECE_BEGIN,
        )  # fmt: skip
        self._table = table
        self._words = np.zeros(attention_kernels.WORDS, np.int64)
        self._batch: tuple[np.ndarray, ...] = ()
        self._parts = 0
        self._scratch: dict[int, torch.Tensor] = {}
        self._counters = np.zeros(2 * native.COUNTER_WORDS, np.int64)
        self._words[attention_kernels.COUNTERS] = self._counters.ctypes.data

    def plan(self, requests: torch.Tensor, lengths: torch.Tensor) -> None:
        """See Decoder."""
        k, words = self._kernels, self._words
        length = lengths.numpy().astype(np.int32)
        request = requests.numpy().astype(np.int32)
        first, sizes = _blocks(request, length, self._most_rows)
        pieces = -(-length[first + sizes - 1] // k.CHUNK)
        # All rows of a block have as many parts as its longest row.
        row_piece = np.concatenate(([0], np.repeat(pieces, sizes).cumsum()[:-1])).astype(np.int32)
        block = np.repeat(np.arange(len(first)), pieces)
        chunk = np.arange(len(block)) - np.repeat(pieces.cumsum() - pieces, pieces)
        begin = (chunk * k.CHUNK).astype(np.int32)
        self._parts = int((pieces * sizes).sum())
        self._batch = (request, length, row_piece, first[block], sizes[block], begin)
        for place, array in zip(self._places, self._batch, strict=True):
            words[place] = array.ctypes.data
        words[k.SLOTS], words[k.SLOTS_STRIDE] = self._table.data_ptr(), self._table.stride(0)
        words[k.ROWS], words[k.PIECES] = len(length), len(block)
        words[k.UNIT_HEADS] = k.ALONE // int(sizes.max())

    @property
    def parts(self) -> int:
        """Pieces of all rows of the planned batch: how many results are merged for each head."""
        return self._parts

    def attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """See Decoder."""
        k, words = self._kernels, self._words
        rows, heads, width = query.shape
        value_width, shares = values.shape[2], native.threads()
        query32 = query.float().contiguous()
        out = torch.empty((rows, heads, value_width))
        words[k.QUERY], words[k.OUT] = query32.data_ptr(), out.data_ptr()
        words[k.KEYS], words[k.VALUES] = keys.data_ptr(), values.data_ptr()
        words[k.KEY_STRIDE], words[k.VALUE_STRIDE] = keys.stride(0), values.stride(0)
        words[k.KEY_WIDTH], words[k.VALUE_WIDTH] = width, value_width
        words[k.Q_HEADS], words[k.KV_HEADS] = heads, keys.shape[1]
        words[k.SCALE] = np.float64(scale).view(np.int64)
        self._reserve(k.SCORES, shares * k.SCRATCH)
        self._reserve(k.PARTS, self._parts * heads * value_width)
        self._reserve(k.SUMS, self._parts * heads * 2)
        self._counters.fill(0)
        self._team.run(self._team.compile(self._source[keys.dtype]), words.ctypes.data, shares)
        return out.to(query.dtype)

    def describe_rows(self, words: np.ndarray) -> None:
        """Copy the description of the planned batch into the words of another call."""
        k = self._kernels
        for place in (k.SLOTS, k.SLOTS_STRIDE, k.ROWS, k.PIECES, k.UNIT_HEADS, *self._places):
            words[place] = self._words[place]

    def _reserve(self, place: int, count: int) -> None:
        """Give the kernels at least `count` floats of scratch memory."""
        held = self._scratch.get(place)
        if held is None or held.numel() < count:
            self._scratch[place] = held = torch.empty(count)
            self._words[place] = held.data_ptr()


def _blocks(request: np.ndarray, length: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return first row and size (int32) of each block: up to `most` rows that follow each other in one request."""
    goes_on = (request[1:] == request[:-1]) & (length[1:] == length[:-1] + 1)
    starts = np.flatnonzero(np.concatenate(([True], ~goes_on)))
    ends = np.append(starts[1:], len(request))
    first = np.concatenate([np.arange(start, end, most) for start, end in zip(starts, ends, strict=True)])
    sizes = np.append(first[1:], len(request)) - first
    return first.astype(np.int32), sizes.astype(np.int32)
