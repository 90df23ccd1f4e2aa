"""What a model weighs, from its configuration: parameters, bytes on each GPU, KV bytes of a token.

Pure arithmetic on `config.json`, no torch. The layouts are SGLang 0.5.23's (`srt/models/deepseek_v2.py`,
`llama.py`, `qwen2.py`, `qwen3.py`): which matrix is split among the ranks of what group, and which is on
every rank. Tested against transformers' own models, parameter by parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from engine.contract import ModelUnusable

BLOCK = 128
"""Side of a square block of FP8 weights that shares one float32 scale."""

_DENSE = ("llama", "mistral", "qwen2", "qwen3")
FAMILIES = (*_DENSE, "deepseek_v3")
"""Values of `model_type` whose arithmetic is known here."""


class Split(StrEnum):
    """Among which ranks a weight is divided."""

    NONE = "none"
    """On every rank: norms, gates, the down-projections of latent attention."""
    ATTENTION = "attention"
    DENSE = "dense"
    SHARED = "shared"
    EXPERTS = "experts"
    EMBEDDING = "embedding"
    HEAD = "head"


@dataclass(frozen=True, slots=True)
class Part:
    """Weights of one kind, all layers together. `fp8`: a linear layer that an FP8 checkpoint quantises.

    `matrices`: (count, rows, columns) of each shape. For Split.EXPERTS they are those of one expert in all layers.
    `copies` of other weights in another form have no parameters of their own.
    """

    name: str
    split: Split
    matrices: tuple[tuple[int, int, int], ...]
    fp8: bool = True
    copies: bool = False

    @property
    def parameters(self) -> int:
        """Return how many numbers these are."""
        return 0 if self.copies else sum(count * rows * columns for count, rows, columns in self.matrices)

    def bytes(self, width: int, quantised: bool) -> int:
        """Return the bytes of all matrices. `width`: bytes of an unquantised number."""
        if quantised and self.fp8:
            return sum(n * (r * c + 4 * _blocks(r) * _blocks(c)) for n, r, c in self.matrices)
        return sum(n * r * c for n, r, c in self.matrices) * width


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model's dimensions. Lengths in tokens. `latent`: numbers that MLA caches for a token and layer, or None.

    `draft_parts`: the multi-token-prediction layers, which only speculation loads. `fp8`: the checkpoint is.
    """

    family: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head: int
    latent: int | None
    intermediate: int
    vocabulary: int
    context: int
    experts: int
    active_experts: int
    moe_intermediate: int
    draft_layers: int
    fp8: bool
    parts: tuple[Part, ...]
    draft_parts: tuple[Part, ...]

    @property
    def parameters(self) -> int:
        """Return the parameters of the model without its draft layers."""
        return sum(self._whole(part) for part in self.parts)

    @property
    def draft_parameters(self) -> int:
        """Return the parameters of the draft layers; embedding and head are the model's own."""
        return sum(self._whole(part) for part in self.draft_parts)

    @property
    def active_parameters(self) -> int:
        """Return the parameters that one token goes through."""
        idle = self.experts - self.active_experts
        return self.parameters - idle * sum(p.parameters for p in self.parts if p.split is Split.EXPERTS)

    def kv_bytes(self, width: int, attention_ranks: int = 1, *, draft: bool = False) -> int:
        """Return the bytes that one token keeps on one rank.

        `width`: bytes of a cached number. A latent is whole on every rank; heads are divided among
        `attention_ranks`, at least one on each. `draft`: with the draft layers' share.
        """
        heads = max(1, self.kv_heads // attention_ranks)
        numbers = self.latent if self.latent is not None else 2 * heads * self.head
        return numbers * (self.layers + (self.draft_layers if draft else 0)) * width

    def _whole(self, part: Part) -> int:
        return part.parameters * (self.experts if part.split is Split.EXPERTS else 1)


def architecture(config: Mapping[str, Any]) -> Architecture:
    """Return what a Hugging Face configuration describes. Raises ModelUnusable, naming the key."""
    family = config.get("model_type")
    if family not in FAMILIES:
        raise ModelUnusable(f"model_type: expected one of {', '.join(FAMILIES)}, got {family!r}")
    read = _Reader(config)
    return _deepseek(read) if family == "deepseek_v3" else _dense(str(family), read)


class _Reader:
    """Reads positive integers from a configuration."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def __call__(self, key: str, default: int | None = None) -> int:
        value = self.config.get(key)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ModelUnusable(f"{key}: expected a whole number, got {self.config.get(key)!r}")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        """Return whether a key is set."""
        return bool(self.config.get(key, default))


def _deepseek(read: _Reader) -> Architecture:
    layers, first_dense = read("num_hidden_layers"), read("first_k_dense_replace")
    drafts = read("num_nextn_predict_layers", 0)
    quantisation = read.config.get("quantization_config") or {}
    return Architecture(
        family="deepseek_v3",
        layers=layers,
        hidden=read("hidden_size"),
        heads=read("num_attention_heads"),
        kv_heads=read("num_attention_heads"),
        head=read("v_head_dim"),
        latent=read("kv_lora_rank") + read("qk_rope_head_dim"),
        intermediate=read("intermediate_size"),
        vocabulary=read("vocab_size"),
        context=read("max_position_embeddings"),
        experts=read("n_routed_experts"),
        active_experts=read("num_experts_per_tok"),
        moe_intermediate=read("moe_intermediate_size"),
        draft_layers=drafts,
        fp8=quantisation.get("quant_method") == "fp8",
        parts=(
            *_ends(read),
            *_latent_attention(read, layers),
            *_mixture(read, layers - first_dense),
            Part("dense MLP", Split.DENSE, _mlp(read, "intermediate_size", first_dense)),
        ),
        draft_parts=(*_latent_attention(read, drafts), *_mixture(read, drafts), _draft_seam(read, drafts))
        if drafts
        else (),
    )


def _dense(family: str, read: _Reader) -> Architecture:
    hidden, heads, layers = read("hidden_size"), read("num_attention_heads"), read("num_hidden_layers")
    kv_heads = read("num_key_value_heads", heads)
    head = read("head_dim", hidden // max(1, heads))
    bias = read.flag("attention_bias", family == "qwen2")
    query, cached = heads * head, kv_heads * head
    biases = ((layers, 1, query + 2 * cached),) if bias else ()
    out_bias = ((layers, 1, hidden),) if bias and family == "llama" else ()
    head_norms = ((layers, 2, head),) if family == "qwen3" else ()
    projections = ((layers, query, hidden), (2 * layers, cached, hidden), (layers, hidden, query))
    return Architecture(
        family=family,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head=head,
        latent=None,
        intermediate=read("intermediate_size"),
        vocabulary=read("vocab_size"),
        context=read("max_position_embeddings"),
        experts=0,
        active_experts=0,
        moe_intermediate=0,
        draft_layers=0,
        fp8=False,
        parts=(
            *_ends(read),
            Part("attention", Split.ATTENTION, (*projections, *biases)),
            Part("norms", Split.NONE, ((2 * layers, 1, hidden), *head_norms, *out_bias), fp8=False),
            Part("dense MLP", Split.DENSE, _mlp(read, "intermediate_size", layers)),
        ),
        draft_parts=(),
    )


def _ends(read: _Reader) -> tuple[Part, ...]:
    """Return what is before and after the layers; a tied head is the embedding again."""
    hidden, vocabulary = read("hidden_size"), read("vocab_size")
    table = ((1, vocabulary, hidden),)
    head = () if read.flag("tie_word_embeddings") else (Part("head", Split.HEAD, table, fp8=False),)
    return (
        Part("embedding", Split.EMBEDDING, table, fp8=False),
        *head,
        Part("last norm", Split.NONE, ((1, 1, hidden),), fp8=False),
    )


def _latent_attention(read: _Reader, layers: int) -> tuple[Part, ...]:
    hidden, heads = read("hidden_size"), read("num_attention_heads")
    q_rank, kv_rank, rope = read("q_lora_rank"), read("kv_lora_rank"), read("qk_rope_head_dim")
    nope, value = read("qk_nope_head_dim"), read("v_head_dim")
    down = ((layers, q_rank, hidden), (layers, kv_rank + rope, hidden))
    up = (
        (layers, heads * (nope + rope), q_rank),
        (layers, heads * (nope + value), kv_rank),
        (layers, hidden, heads * value),
    )
    absorbed = ((layers, heads * (nope + value), kv_rank),)
    return (
        Part("attention, down", Split.NONE, down),
        Part("attention, up", Split.ATTENTION, up),
        # Loaded weights stay for prefill; decode multiplies with these unquantised copies.
        Part("attention, absorbed", Split.ATTENTION, absorbed, fp8=False, copies=True),
        Part("norms", Split.NONE, ((layers, 1, 2 * hidden + q_rank + kv_rank),), fp8=False),
    )


def _mixture(read: _Reader, layers: int) -> tuple[Part, ...]:
    experts, shared = read("n_routed_experts"), read("n_shared_experts", 0)
    gate = ((layers, experts, read("hidden_size")), (layers, 1, experts))
    return (
        Part("routed experts", Split.EXPERTS, _mlp(read, "moe_intermediate_size", layers)),
        Part("shared expert", Split.SHARED, _mlp(read, "moe_intermediate_size", layers * shared)),
        Part("gates", Split.NONE, gate, fp8=False),
    )


def _draft_seam(read: _Reader, drafts: int) -> Part:
    """Return what joins the last hidden state and the next token's embedding, with its three norms."""
    hidden = read("hidden_size")
    return Part("draft seam", Split.NONE, ((drafts, hidden, 2 * hidden), (3 * drafts, 1, hidden)), fp8=False)


def _mlp(read: _Reader, key: str, count: int) -> tuple[tuple[int, int, int], ...]:
    hidden, inner = read("hidden_size"), read(key)
    return ((2 * count, inner, hidden), (count, hidden, inner))


def _blocks(length: int) -> int:
    return -(-length // BLOCK)
