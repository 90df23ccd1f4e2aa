"""The default model with its channels in another order: the same function, whose weights fit no block of a file.

A permutation of the hidden, the inner and the value channels changes no result, but the 32 weights of a block then come
from different blocks of the file: what a checkpoint with weights of 16 bits looks like to `engine.cpu.packing`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def reordered(folder: Path) -> Any:
    """Return transformers' float32 model from a Llama folder, reordered."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randperm(model.config.hidden_size, generator=generator)
    inner = torch.randperm(model.config.intermediate_size, generator=generator)
    with torch.no_grad():
        _columns(model.model.embed_tokens, hidden)  # the vocabulary projection is the same matrix
        model.model.norm.weight.copy_(model.model.norm.weight[hidden])
        for layer in model.model.layers:
            for norm in (layer.input_layernorm, layer.post_attention_layernorm):
                norm.weight.copy_(norm.weight[hidden])
            attention, mlp = layer.self_attn, layer.mlp
            for part in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
                _columns(part, hidden)
            for part in (mlp.gate_proj, mlp.up_proj):
                part.weight.copy_(part.weight[inner])
            _columns(mlp.down_proj, inner)
            _values(attention, model.config, generator)
            for part in (attention.o_proj, mlp.down_proj):
                part.weight.copy_(part.weight[hidden])
    return model


def matrices(model: Any) -> list[torch.Tensor]:
    """Return the weights that a step multiplies with."""
    linears = [part.weight for part in model.model.modules() if isinstance(part, torch.nn.Linear)]
    return [*linears, model.lm_head.weight]


def perplexity(model: Any, ids: list[int]) -> float:
    """Return e to the mean negative log-likelihood of each id after those before it."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, :-1].double()
    return float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:])).exp())


def _columns(part: Any, order: torch.Tensor) -> None:
    part.weight.copy_(part.weight[:, order])


def _values(attention: Any, config: Any, generator: torch.Generator) -> None:
    """Reorder the value channels of each kv head, and the output's columns of the heads that share it."""
    width, kv_heads = attention.head_dim, config.num_key_value_heads
    group = config.num_attention_heads // kv_heads
    orders = [torch.randperm(width, generator=generator) for _ in range(kv_heads)]
    rows = torch.cat([head * width + order for head, order in enumerate(orders)])
    columns = torch.cat([head * width + orders[head // group] for head in range(kv_heads * group)])
    attention.v_proj.weight.copy_(attention.v_proj.weight[rows])
    _columns(attention.o_proj, columns)
