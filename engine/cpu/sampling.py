"""Sampling whose choice depends on (probabilities, seed, position) and on nothing else.

A crashed answer is continued by prefilling `prompt + answer[:k]`; a sampled answer then goes on as it
would have only if token k is drawn the same way whichever step, batch or process draws it. SGLang has
seeded sampling under its deterministic mode, which needs GPU kernels. Here a step needs one uniform
number a row, hashed from (seed, position), and inverts the cumulative distribution in vocabulary order:
cheaper than one random number a token, and equal probabilities keep their order.

The seed of a request travels in `SamplingParams.sampling_seed`, which SGLang drops outside of its
deterministic mode; an AFTER hook (SGLang's own plugin seam) puts it back.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import numpy as np
import torch

_TOP = 512
"""Ranks looked at before sorting a whole vocabulary: nearly always enough for top-p."""


def register() -> None:
    """Replace the sampler of the `pytorch` back end and keep seeds. Called once per worker."""
    from sglang.srt.layers.sampler import Sampler, register_sampler_backend  # noqa: PLC0415 — worker only
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType  # noqa: PLC0415

    class SeededSampler(Sampler):
        """SGLang's sampler with its last step, probabilities to ids, replaced."""

        def _sample_from_probs(
            self, probs: torch.Tensor, sampling_info: Any, positions: torch.Tensor, simple_sampling_case: bool
        ) -> tuple[torch.Tensor, None]:
            if not simple_sampling_case:
                probs = keep_likely(probs, sampling_info.top_ks, sampling_info.top_ps, sampling_info.min_ps)
            return draw(probs, uniforms(sampling_info.sampling_seed, positions)), None

    register_sampler_backend("pytorch", SeededSampler)
    HookRegistry.register(
        "sglang.srt.sampling.sampling_batch_info.SamplingBatchInfo.from_schedule_batch",
        _keep_seeds,
        HookType.AFTER,
    )
    HookRegistry.apply_hooks()


def uniforms(seeds: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return one number in [0, 1) for each (seed, position): float64 [rows]."""
    rows = zip(seeds.tolist(), positions.tolist(), strict=True)
    return torch.tensor([_uniform(seed, position) for seed, position in rows], dtype=torch.float64)


def draw(probs: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Return the token at each number's place in its row's cumulative distribution: int32 [rows].

    probs: [rows, vocabulary], need not sum to 1.
    """
    cumulative = probs.double().cumsum(dim=-1)
    total = cumulative[:, -1:]
    found = torch.searchsorted(cumulative, numbers[:, None] * total, right=True)
    # Rounding may put the number on the total itself; the last token with mass is meant then.
    last = (cumulative < total).sum(dim=-1, keepdim=True)
    return torch.minimum(found, last).view(-1).to(torch.int32)


def keep_likely(
    probs: torch.Tensor, top_ks: torch.Tensor, top_ps: torch.Tensor, min_ps: torch.Tensor
) -> torch.Tensor:
    """Return `probs` with everything outside top-k, top-p or min-p set to 0.

    Tokens as probable as the last one kept are kept too, so the result does not depend on how a
    sort orders ties.
    """
    endless = (top_ps >= 1.0) & (top_ks >= probs.shape[-1])
    top = probs.topk(min(_TOP, probs.shape[-1]), dim=-1).values
    decided = endless | (top_ks <= top.shape[-1]) | ((top_ps < 1.0) & (top.sum(dim=-1) >= top_ps))
    floor = _last_kept(top, top_ks, top_ps)
    if not bool(decided.all()):
        rows = decided.logical_not().nonzero().view(-1)
        floor[rows] = _last_kept(_sorted(probs[rows]), top_ks[rows], top_ps[rows])
    floor.masked_fill_(endless[:, None], 0.0)
    return probs.masked_fill(probs < torch.maximum(floor, top[:, :1] * min_ps[:, None]), 0.0)


def _sorted(probs: torch.Tensor) -> torch.Tensor:
    """Return each row's probabilities, greatest first. numpy sorts in vectors: 0.1 ms a row where torch takes 2.7."""
    return torch.from_numpy(np.sort(probs.numpy(), axis=-1)[:, ::-1].copy())


def _last_kept(top: torch.Tensor, top_ks: torch.Tensor, top_ps: torch.Tensor) -> torch.Tensor:
    """Return the smallest probability that top-k and top-p keep: [rows, 1]. `top`: sorted, greatest first."""
    before = top.cumsum(dim=-1) - top  # mass of the more probable tokens
    ranks = torch.arange(top.shape[-1])
    kept = ((before < top_ps[:, None]) | (top_ps[:, None] >= 1.0)) & (ranks < top_ks[:, None])
    return top.gather(-1, kept.sum(dim=-1, keepdim=True).clamp(min=1) - 1)


def _uniform(seed: int, position: int) -> float:
    digest = hashlib.blake2b(struct.pack("<qq", seed, position), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


def _keep_seeds(info: Any, *args: Any, **kwargs: Any) -> Any:
    """Set `sampling_seed` on a batch's sampling info; modifies `info`.

    A hook on a class method sees (cls, batch, ...) or (batch, ...), by SGLang's version.
    """
    batch = kwargs.get("batch") or next(a for a in args if hasattr(a, "reqs"))
    seeds = [request.sampling_params.sampling_seed or 0 for request in batch.reqs]
    info.sampling_seed = torch.tensor(seeds, dtype=torch.int64)
    return info
