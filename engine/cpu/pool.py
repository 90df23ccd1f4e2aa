"""KV pools whose memory is taken as tokens come to be kept, not at start.

SGLang zeroes its pool, and with that the whole of it is resident before there is one token: 1.5 GB for four
windows of the default model. Anonymous memory from the system is zero as well, and costs nothing until it is
written. A pool larger than what the system grants still fails at start, with `Cannot allocate memory`.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence

import torch
from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool, MLATokenToKVPool


class LazyKeyValuePool(MHATokenToKVPool):
    """Keys and values of each layer."""

    def _create_buffers_normal(self) -> None:
        if self.kv_cache_layout != "nhd":
            super()._create_buffers_normal()
            return
        keys, values = self._kv_buffer_shapes()
        self.k_buffer = [zeros(keys, self.store_dtype) for _ in range(self.layer_num)]
        self.v_buffer = [zeros(values, self.store_dtype) for _ in range(self.layer_num)]


class LazyLatentPool(MLATokenToKVPool):
    """Latent vectors (MLA) of each layer."""

    def _create_buffers(self) -> None:
        shape = (self.size + self.page_size, 1, int(self.kv_cache_dim or 0))
        self.kv_buffer = [zeros(shape, self.store_dtype) for _ in range(self.layer_num)]


def zeros(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor of zeros on pages of its own, which take no memory until they are written."""
    size = math.prod(shape) * dtype.itemsize
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=dtype, count=math.prod(shape)).view(*shape)
