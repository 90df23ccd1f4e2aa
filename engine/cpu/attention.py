"""An attention back end for any CPU: new queries only, keys and values read where they lie.

SGLang's `torch_native` copies every key and value out of the pool at each layer of each step and, in a
prefill, computes the cached prefix again. This one

- decodes with native kernels (`engine.cpu.attention_kernels`) that read the paged pool in place, all
  requests of a batch at once and long contexts shared by all threads; without native kernels it gathers
  once for the batch and lets torch attend;
- prefills in tiles of new queries against prefix + new keys; where the slots of a request are one run (the
  usual case) the keys are a view of the pool, else they are gathered once a layer.

Multi-head, grouped and latent (absorbed MLA) attention are covered, float32 and bfloat16. Anything else
(sliding windows, cross and encoder attention, soft caps, quantised pools) goes to `torch_native`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend
from sglang.srt.layers.radix_attention import AttentionType
from sglang.srt.mem_cache.memory_pool import KVWriteLoc

from engine.cpu import native
from engine.cpu.decode_attention import Decoder, NativeDecoder, TorchDecoder
from engine.cpu.portable import ATTENTION

_TILE_ELEMENTS = 16 * 2**20
"""Scores of one tile of a prefill, at most: 64 MB in float32."""
_TILE_QUERIES = 256


def register() -> None:
    """Make the back end known to SGLang as `portable.ATTENTION`. Idempotent; call it before models run."""
    from sglang.srt.layers.attention.attention_registry import (  # noqa: PLC0415 — circular at import
        register_attention_backend,
    )

    register_attention_backend(ATTENTION)(PortableAttention)


@dataclass(frozen=True, slots=True)
class _Extend:
    """One request of a prefill: `count` new queries from row `begin`, behind `prefix` cached tokens.

    `slots`: pool slots of prefix + new tokens, as a slice where they are one run.
    """

    begin: int
    count: int
    prefix: int
    slots: slice | torch.Tensor


class PortableAttention(TorchNativeAttnBackend):
    """The back end; see the module. One instance a worker; not thread-safe."""

    def __init__(self, model_runner: Any) -> None:
        super().__init__(model_runner)
        self._extends: list[_Extend] = []
        self._batch: Any = None
        self._kv: Any = self.token_to_kv_pool
        self._table: torch.Tensor = model_runner.req_to_token_pool.req_to_token
        self.decoder = _decoder(self._table, _group(model_runner.model_config))

    def init_forward_metadata(self, forward_batch: Any) -> None:
        """Read the batch's shape once for all layers."""
        super().init_forward_metadata(forward_batch)
        self._batch = forward_batch
        if forward_batch.forward_mode.is_decode_or_idle():
            if forward_batch.batch_size:
                self.decoder.plan(forward_batch.req_pool_indices, _lengths(forward_batch))
        else:
            self._extends = self._plan_extends(forward_batch)

    def forward_decode(  # noqa: PLR0917 — SGLang's signature
        self, q: Any, k: Any, v: Any, layer: Any, forward_batch: Any, save_kv_cache: bool = True, **rest: Any
    ) -> torch.Tensor:
        """Return [tokens, heads * value width] for one new query a request."""
        if not self._covers(layer):
            return super().forward_decode(q, k, v, layer, forward_batch, save_kv_cache)
        self._require(forward_batch)
        self._save(k, v, layer, forward_batch, save_kv_cache)
        keys, values = self._pool(layer)
        query = q.reshape(-1, layer.tp_q_head_num, layer.qk_head_dim)
        out = self.decoder.attend(query, keys, values, layer.scaling)
        return out.view(query.shape[0], -1)

    def forward_extend(  # noqa: PLR0917 — SGLang's signature
        self, q: Any, k: Any, v: Any, layer: Any, forward_batch: Any, save_kv_cache: bool = True, **rest: Any
    ) -> torch.Tensor:
        """Return [tokens, heads * value width] for the new queries of every request, one after the other."""
        if not self._covers(layer) or not forward_batch.forward_mode.is_extend(include_draft_extend_v2=True):
            return super().forward_extend(q, k, v, layer, forward_batch, save_kv_cache)
        self._require(forward_batch)
        self._save(k, v, layer, forward_batch, save_kv_cache)
        keys, values = self._pool(layer)
        query = q.reshape(-1, layer.tp_q_head_num, layer.qk_head_dim)
        out = query.new_empty((query.shape[0], layer.tp_q_head_num, layer.v_head_dim))
        for extend in self._extends:
            rows = slice(extend.begin, extend.begin + extend.count)
            _attend(query[rows], keys[extend.slots], values[extend.slots], out[rows], layer.scaling)
        return out.view(query.shape[0], -1)

    def _plan_extends(self, batch: Any) -> list[_Extend]:
        extends, begin = [], 0
        counts, prefixes = batch.extend_seq_lens_cpu, batch.extend_prefix_lens_cpu
        if batch.forward_mode.is_target_verify():
            counts = [batch.spec_info.draft_token_num] * batch.batch_size
            prefixes = _lengths(batch).tolist()
        for request, count, prefix in zip(batch.req_pool_indices.tolist(), counts, prefixes, strict=True):
            extends.append(_Extend(begin, count, prefix, _as_run(self._table[request, : prefix + count])))
            begin += count
        return extends

    def _require(self, forward_batch: Any) -> None:
        """Plan a batch that came without `init_forward_metadata` (SGLang may skip it for split batches)."""
        if self._batch is not forward_batch:
            self.init_forward_metadata(forward_batch)

    def _save(self, k: Any, v: Any, layer: Any, forward_batch: Any, save: bool) -> None:
        if save and k is not None and v is not None:
            where = KVWriteLoc(forward_batch.out_cache_loc, self.swa_out_cache_loc)
            self._kv.set_kv_buffer(layer, where, k, v)

    def _pool(self, layer: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values of a layer: [slots, kv heads, width]."""
        return self._kv.get_key_buffer(layer.layer_id), self._kv.get_value_buffer(layer.layer_id)

    def _covers(self, layer: Any) -> bool:
        return (
            not layer.is_cross_attention
            and layer.attn_type == AttentionType.DECODER
            and (layer.sliding_window_size is None or layer.sliding_window_size < 0)
            and not layer.logit_cap
            and not self.use_sliding_window_kv_pool
            and self._kv.dtype in (torch.float32, torch.bfloat16)
        )


def _group(config: Any) -> int:
    """Return how many query heads share a kv head."""
    return max(1, (config.num_attention_heads or 1) // max(1, config.get_total_num_kv_heads()))


def _decoder(table: torch.Tensor, group: int) -> Decoder:
    team = native.team()
    return TorchDecoder(table) if team is None else NativeDecoder(table, team, group)


def _lengths(batch: Any) -> torch.Tensor:
    return batch.seq_lens if batch.seq_lens_cpu is None else batch.seq_lens_cpu


def _as_run(slots: torch.Tensor) -> slice | torch.Tensor:
    """Return `slots` as a slice if they are consecutive: a slice of the pool is a view, not a copy."""
    first, count = int(slots[0]), slots.shape[0]
    if int(slots[-1]) - first == count - 1 and bool((slots[1:] - slots[:-1] == 1).all()):
        return slice(first, first + count)
    return slots


def _attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, out: torch.Tensor, scale: float
) -> None:
    """Set `out` to causal attention of the last queries of a sequence.

    query: [new, heads, key width] · keys, values: [prefix + new, kv heads, width]
    out: [new, heads, value width]

    Query heads that share a kv head become a batch dimension over which keys are broadcast, so keys
    are never copied. Latent values are the first part of their keys: the keys serve as values, the
    widths agree, and torch can take its fused kernel.
    """
    new, heads, width = query.shape
    prefix, kv_heads = keys.shape[0] - new, keys.shape[1]
    group, value_width = heads // kv_heads, values.shape[2]
    if value_width != width and values.data_ptr() == keys.data_ptr():
        values = keys
    grouped = query.view(new, kv_heads, group, width).permute(2, 1, 0, 3)
    result = out.view(new, kv_heads, group, value_width).permute(2, 1, 0, 3)
    tile = max(16, min(_TILE_QUERIES, _TILE_ELEMENTS // (heads * keys.shape[0])))
    for begin in range(0, new, tile):
        end = min(new, begin + tile)
        seen = prefix + end
        shared = [
            part[:seen].to(query.dtype).transpose(0, 1).expand(group, kv_heads, seen, part.shape[2])
            for part in (keys, values)
        ]
        mask = _causal(end - begin, seen, query.dtype)
        part = torch.nn.functional.scaled_dot_product_attention(
            grouped[:, :, begin:end], *shared, attn_mask=mask, scale=scale
        )
        result[:, :, begin:end] = part[..., :value_width]


def _causal(queries: int, keys: int, dtype: torch.dtype) -> torch.Tensor:
    """Return [queries, keys]: 0 where a query may look, -inf behind it; the last query sees all keys."""
    mask = torch.full((queries, keys), float("-inf"), dtype=dtype)
    return mask.triu_(keys - queries + 1)
