"""Mixture of experts in plain torch, for any CPU and for expert parallelism.

SGLang's native forward counts tokens per expert with `scatter_`, so it fails when the router marks
an expert of another rank with id -1. This one groups the (token, expert) pairs by expert, skips the
negative ids, and leaves their share to the all-reduce that follows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

_ACTIVATIONS = {"silu": functional.silu, "gelu": functional.gelu}


def register() -> None:
    """Use `forward` for unquantised experts on this platform. Idempotent."""
    from sglang.kernels.fused_op import BaseFusedOp  # noqa: PLC0415 — worker only
    from sglang.srt.layers.quantization.unquant import UnquantizedFusedMoEMethod  # noqa: PLC0415

    BaseFusedOp.register_oot_forward(UnquantizedFusedMoEMethod, forward, "native")


def forward(method: Any, layer: Any, dispatch_output: Any) -> Any:
    """Run the experts of this rank; SGLang binds it as the method's `forward`.

    Layers with biases or unusual activations go to SGLang's own forward.
    """
    from sglang.srt.layers.moe.token_dispatcher import StandardCombineInput  # noqa: PLC0415 — worker only

    if not _is_plain(layer):
        return method.forward_cpu(layer, dispatch_output)
    weights, ids, _ = dispatch_output.topk_output
    hidden = mix(
        dispatch_output.hidden_states,
        layer.w13_weight,
        layer.w2_weight,
        weights,
        ids,
        activation=layer.moe_runner_config.activation,
    )
    return StandardCombineInput(hidden_states=hidden)


def mix(
    x: torch.Tensor,
    w13: torch.Tensor,
    w2: torch.Tensor,
    weights: torch.Tensor,
    ids: torch.Tensor,
    *,
    activation: str = "silu",
) -> torch.Tensor:
    """Return the weighted sum of the chosen experts' outputs, without changing the arguments.

    x: [tokens, hidden] · w13: [experts, 2 * inner, hidden], gate above up · w2: [experts, hidden, inner]
    weights, ids: [tokens, chosen]; an id < 0 contributes nothing.
    """
    act = _ACTIVATIONS[activation]
    flat = ids.reshape(-1)
    order = flat.argsort(stable=True)
    counts = torch.bincount(flat[flat >= 0], minlength=w13.shape[0]).tolist()
    begin = flat.numel() - sum(counts)  # the negative ids sort first
    out = torch.zeros_like(x)
    flat_weights = weights.reshape(-1).to(x.dtype)
    for expert, count in enumerate(counts):
        if not count:
            continue
        pairs = order[begin : begin + count]
        begin += count
        tokens = pairs // ids.shape[1]
        gate, up = functional.linear(x[tokens], w13[expert]).chunk(2, dim=-1)
        expert_out = functional.linear(act(gate) * up, w2[expert])
        out.index_add_(0, tokens, expert_out * flat_weights[pairs, None])
    return out


def _is_plain(layer: Any) -> bool:
    config = layer.moe_runner_config
    return (
        config.activation in _ACTIVATIONS
        and config.is_gated
        and not config.apply_router_weight_on_input
        and getattr(config, "gemm1_alpha", None) is None
        and getattr(layer, "w13_weight_bias", None) is None
    )
