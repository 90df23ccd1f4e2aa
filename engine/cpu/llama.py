"""Llama models on native kernels: whole steps as one call for some hundred tokens (`llama_kernels`).

`install` packs a loaded model's weights (exactly unless ENGINE_WEIGHTS says int8, see `packing`) and takes over its
decode steps, its short prefills and its vocabulary projection; long prefills too where that is faster, slice by slice,
and then the layers' float32 weights are freed. Everything else (other batches, other models) stays with SGLang's own
operators. For int8, float32 weights that stay are set to what they were rounded to.
"""

from __future__ import annotations

import logging
import sys
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from engine.cpu import native
from engine.cpu.decode_attention import NativeDecoder
from engine.cpu.linear import NativeLinear, block_tokens, describe, is_faster
from engine.cpu.packing import pack_chosen

SHORT = 64
"""Tokens of a step that the native kernels take on every processor; above it torch's products can be faster."""

_MODELS = ("LlamaForCausalLM", "MistralForCausalLM", "Phi3ForCausalLM", "InternLM3ForCausalLM")
"""Classes of SGLang whose layers are those of Llama."""

_ROTATIONS = ("RotaryEmbedding", "Llama3RotaryEmbedding")
"""Rotary embeddings whose rotation is a table by position."""

_log = logging.getLogger(__name__)


def install(model: torch.nn.Module) -> bool:
    """Take over `model` if it is a Llama model that the kernels cover; return whether. Call it once loaded."""
    team = native.team()
    if team is None or not _covers(model):
        return False
    begin = time.perf_counter()
    covered: Any = model
    layers = _Layers(covered.model, team)
    head = NativeLinear(pack_chosen(covered.lm_head.weight), team)
    covered.model.forward = layers.forward
    if layers.most_tokens > SHORT:
        layers.free_wide()
    processor = covered.logits_processor
    processor._compute_lm_head = _Head(head, processor._compute_lm_head).logits
    _log.info(
        "llama: native steps, %d MB of weights each, long prefills %s, ready in %.2f s",
        (layers.nbytes + head.weights.nbytes) // 2**20,
        "too" if layers.most_tokens > SHORT else "on torch",
        time.perf_counter() - begin,
    )
    return True


def _covers(model: Any) -> bool:
    """Say whether the kernels compute what this model's layers do."""
    if type(model).__name__ not in _MODELS or model.pp_group.world_size != 1:
        return False
    layers = model.model.layers
    attention = layers[0].self_attn
    linears = [part for layer in layers for part in _linears(layer)]
    return (
        all(part.weight.dtype == torch.float32 and part.bias is None for part in linears)
        and all(type(part.quant_method).__name__ == "UnquantizedLinearMethod" for part in linears)
        and model.lm_head.weight.dtype == torch.float32
        and attention.num_heads == attention.total_num_heads  # one rank holds all heads
        and type(attention.rotary_emb).__name__ in _ROTATIONS
        and attention.rotary_emb.is_neox_style
        and attention.rotary_emb.rotary_dim == attention.head_dim
        and linears[-1].weight.shape[1] % 4 == 0
    )


def _linears(layer: Any) -> tuple[Any, Any, Any, Any]:
    return layer.self_attn.qkv_proj, layer.self_attn.o_proj, layer.mlp.gate_up_proj, layer.mlp.down_proj


class _Layers:
    """The layers of one model; `forward` has the signature of SGLang's LlamaModel."""

    def __init__(self, model: Any, team: native.Team) -> None:
        from engine.cpu import llama_kernels  # noqa: PLC0415 — imports numba

        self._k = llama_kernels
        self._team = team
        self._code = team.compile(llama_kernels.forward)
        self._model = model
        self._otherwise = model.forward
        self._weights = [[pack_chosen(part.weight) for part in _linears(layer)] for layer in model.layers]
        attention = model.layers[0].self_attn
        self._shape = SimpleNamespace(
            heads=attention.num_heads,
            kv_heads=attention.num_kv_heads,
            width=attention.head_dim,
            hidden=model.config.hidden_size,
            inner=model.layers[0].mlp.down_proj.weight.shape[1],
        )
        self.slice = block_tokens(max(self._shape.hidden, self._shape.inner))
        """Tokens of one call."""
        self._scale = attention.scaling
        self._rotation = attention.rotary_emb.cos_sin_cache.float().contiguous()
        self._words: np.ndarray | None = None
        gate_up = NativeLinear(self._weights[0][2], team)
        self.most_tokens = (
            sys.maxsize if is_faster(gate_up, model.layers[0].mlp.gate_up_proj.weight) else SHORT
        )
        self._counters = np.zeros(len(model.layers) * llama_kernels.PHASES * native.COUNTER_WORDS, np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of weights that a step reads."""
        return sum(part.nbytes for layer in self._weights for part in layer)

    def free_wide(self) -> None:
        """Free the float32 weights; what the kernels do not take multiplies with the packed ones from now on."""
        for layer, weights in zip(self._model.layers, self._weights, strict=True):
            for part, packed in zip(_linears(layer), weights, strict=True):
                part.quant_method.apply = _Product(NativeLinear(packed, self._team)).apply
                part.weight.data = part.weight.data.new_zeros(()).expand(part.weight.shape)

    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        forward_batch: Any,
        input_embeds: Any = None,
        pp_proxy_tensors: Any = None,
    ) -> Any:
        """Return the normed hidden states [tokens, hidden]."""
        decoder = self._decoder(forward_batch, input_ids.shape[0]) if input_embeds is None else None
        if decoder is None:
            return self._otherwise(
                input_ids, positions, forward_batch, input_embeds, pp_proxy_tensors=pp_proxy_tensors
            )
        stream = self._model.embed_tokens(input_ids).contiguous()
        at, places = positions.long().contiguous(), forward_batch.out_cache_loc.long().contiguous()
        requests, lengths = _rows(forward_batch)
        for begin in range(0, stream.shape[0], self.slice):
            rows = slice(begin, begin + self.slice)
            decoder.plan(requests[rows], lengths[rows])
            self._run(decoder, stream[rows], at[rows], places[rows])
        return self._model.norm(stream)

    def _decoder(self, batch: Any, tokens: int) -> NativeDecoder | None:
        """Return the decoder of the running attention back end if the kernels can take this step."""
        from sglang.srt.model_executor.forward_batch_info import ForwardMode  # noqa: PLC0415 — worker only
        from sglang.srt.model_executor.forward_context import get_attn_backend  # noqa: PLC0415

        if not 0 < tokens <= self.most_tokens or self._model.layers_to_capture:
            return None
        if batch.forward_mode not in (ForwardMode.DECODE, ForwardMode.EXTEND, ForwardMode.MIXED):
            return None
        backend: Any = get_attn_backend()
        decoder = getattr(backend, "decoder", None)
        pool = getattr(backend, "token_to_kv_pool", None)
        if not isinstance(decoder, NativeDecoder) or getattr(pool, "dtype", None) != torch.float32:
            return None
        if self._words is None:
            self._words = self._describe(pool)
        return decoder

    def _run(self, decoder: NativeDecoder, stream: torch.Tensor, positions: Any, places: Any) -> None:
        """Run the kernel; `stream` is modified, and the pool at `places`."""
        k, a, words, shape = self._k, self._k.attention, self._words, self._shape
        assert words is not None
        tokens = stream.shape[0]
        decoder.describe_rows(words)
        rows = shape.heads * shape.width
        widest = max(shape.hidden, shape.inner, rows)
        scratch = max(a.SCRATCH, tokens * shape.hidden + 2 * k.STRIP * (widest + tokens)) + 64
        sizes = {
            k.QKV: tokens * (shape.heads + 2 * shape.kv_heads) * shape.width,
            a.QUERY: tokens * rows,
            k.MIXED: tokens * rows,
            k.GATED: tokens * shape.inner,
            k.SCRATCH: native.threads() * scratch,
            a.PARTS: decoder.parts * rows,
            a.SUMS: decoder.parts * shape.heads * 2,
        }
        buffers = {place: torch.empty(size) for place, size in sizes.items()}
        for place, buffer in buffers.items():
            words[place] = buffer.data_ptr()
        words[a.OUT] = words[k.MIXED]
        words[k.SCRATCH_SIZE], words[k.TOKENS] = scratch, tokens
        words[k.STREAM], words[k.POSITIONS] = stream.data_ptr(), positions.data_ptr()
        words[k.PLACES] = places.data_ptr()
        self._counters.fill(0)
        self._team.run(self._code, words.ctypes.data, native.threads())

    def _describe(self, pool: Any) -> np.ndarray:
        """Return the words that stay the same: sizes, weights, the pool."""
        k, a, shape = self._k, self._k.attention, self._shape
        words = np.zeros(k.HEADER + len(self._weights) * k.LAYER, np.int64)
        words[a.Q_HEADS], words[a.KV_HEADS] = shape.heads, shape.kv_heads
        words[a.KEY_WIDTH] = words[a.VALUE_WIDTH] = shape.width
        words[a.SCALE] = np.float64(self._scale).view(np.int64)
        words[a.COUNTERS] = self._counters.ctypes.data
        words[k.HIDDEN], words[k.INNER], words[k.LAYERS] = shape.hidden, shape.inner, len(self._weights)
        words[k.EPSILON] = np.float64(self._model.config.rms_norm_eps).view(np.int64)
        words[k.ROTATION] = self._rotation.data_ptr()
        for index, (layer, weights) in enumerate(zip(self._model.layers, self._weights, strict=True)):
            at = k.HEADER + index * k.LAYER
            keys, values = pool.get_key_buffer(index), pool.get_value_buffer(index)
            words[a.KEY_STRIDE], words[a.VALUE_STRIDE] = keys.stride(0), values.stride(0)
            words[at + k.LAYER_KEYS], words[at + k.LAYER_VALUES] = keys.data_ptr(), values.data_ptr()
            words[at + k.NORM_ATTENTION] = layer.input_layernorm.weight.data_ptr()
            words[at + k.NORM_MLP] = layer.post_attention_layernorm.weight.data_ptr()
            for place, packed in zip((k.W_QKV, k.W_OUT, k.W_GATE_UP, k.W_DOWN), weights, strict=True):
                describe(packed, words[at + place :])
        return words


class _Head:
    """The vocabulary projection; `logits` has the signature of SGLang's `_compute_lm_head`."""

    def __init__(self, linear: NativeLinear, otherwise: Any) -> None:
        self._linear = linear
        self._otherwise = otherwise

    def logits(
        self, hidden: torch.Tensor, lm_head: Any, embedding_bias: Any = None, *, out: Any = None
    ) -> Any:
        """Return logits [tokens, vocabulary]."""
        if embedding_bias is not None or hasattr(lm_head, "set_lora"):
            return self._otherwise(hidden, lm_head, embedding_bias, out=out)
        return self._linear(hidden)


class _Product:
    """A product outside of the kernels' steps; `apply` has the signature of SGLang's linear methods."""

    def __init__(self, linear: NativeLinear) -> None:
        self._linear = linear

    def apply(self, layer: Any, x: torch.Tensor, bias: Any = None) -> torch.Tensor:
        """Return x [..., columns] times the layer's transposed weights; layers with a bias are not taken over."""
        return self._linear(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)


def _rows(batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return, for each token of a step, its row of the slot table and how many tokens it sees."""
    requests = batch.req_pool_indices
    if batch.forward_mode.is_decode():
        return requests, batch.seq_lens if batch.seq_lens_cpu is None else batch.seq_lens_cpu
    counts = torch.tensor(batch.extend_seq_lens_cpu)
    prefixes = batch.extend_prefix_lens_cpu
    seen = [
        torch.arange(prefix + 1, prefix + count + 1)
        for prefix, count in zip(prefixes, counts.tolist(), strict=True)
    ]
    return requests.repeat_interleave(counts), torch.cat(seen)
