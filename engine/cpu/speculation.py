"""Speculation with a model's own draft layer (MTP) on CPUs: one draft token a step, and never another answer.

SGLang's scheduler and its EAGLE worker run as they are; what they do in Triton and CUDA kernels is done here in a
few tensor operations, put in place by SGLang's hook registry. Drafts are one path (topk 1, one step), so a tree of
candidates is a row: the token that was chosen last, then the draft.

    candidates   a | b        target model's choice after a: b'; after b: c
    b == b'  ->  b and c are the answer's next tokens      b != b'  ->  b' is

The choice after each candidate is made as without speculation: the likeliest token, or the one that
`engine.cpu.sampling` draws for (probabilities, seed, position). So sampled answers do not change either, which
rejection sampling would not give.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch

from engine.cpu import sampling

ALGORITHM = "EAGLE"
"""What SGLang calls it once NEXTN, its alias for draft layers in the checkpoint, is resolved."""
_EAGLE = "sglang.srt.speculative.eagle_utils"
_OPS = "sglang.kernels.ops.speculative"


@dataclass(frozen=True, slots=True)
class _Verification:
    """What is verified now: positions [requests * width], logits [requests * width, vocabulary], how to sample."""

    positions: torch.Tensor
    logits: torch.Tensor
    sampling: Any


_current: ContextVar[_Verification] = ContextVar("verification")


def register() -> None:
    """Put the steps in place; once a worker, after the model is loaded. Without speculation nothing calls them."""
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType  # noqa: PLC0415 — worker only

    replaced = {
        "sglang.srt.mem_cache.allocation.assign_req_to_token_pool_func": _assign_slots,
        "sglang.srt.models.deepseek_v2.DeepseekV2ForCausalLM.set_embed_and_head": _share_ends,
        "sglang.srt.speculative.draft_utils.DraftBackendFactory.create_draft_extend_backend": _draft_attention,
        f"{_EAGLE}._verify_uses_greedy": _always,
        f"{_OPS}.cache_locs.assign_draft_cache_locs_contiguous_func": _draft_slots,
        f"{_OPS}.eagle.fill_bonus_tokens_func": _fill_last_accepted,
        f"{_OPS}.spec_tree.build_tree_kernel_efficient_func": _lay_out,
        f"{_OPS}.spec_tree.verify_tree_greedy_func": _accept,
    }
    for target, function in replaced.items():
        HookRegistry.register(target, function, HookType.REPLACE)
    HookRegistry.register(f"{_EAGLE}.eagle_sample", _verify, HookType.AROUND)
    HookRegistry.apply_hooks()


def slots_of(
    *,
    req_pool_indices: torch.Tensor,
    req_to_token: torch.Tensor,
    start_offset: torch.Tensor,
    draft_token_num: int,
    **rest: Any,
) -> torch.Tensor:
    """Return the pool slots of the next `draft_token_num` tokens of each request, one after the other.

    SGLang asks the platform for this (`get_speculative_cache_locs_fn`).
    """
    places = start_offset[:, None] + torch.arange(draft_token_num)
    return req_to_token[req_pool_indices[:, None], places].reshape(-1).long()


def _draft_slots(  # noqa: PLR0917 — SGLang's signature
    requests: torch.Tensor,
    table: torch.Tensor,
    lengths: torch.Tensor,
    out: torch.Tensor,
    topk: int,
    columns: int,
    **rest: Any,
) -> None:
    out.copy_(
        slots_of(req_pool_indices=requests, req_to_token=table, start_offset=lengths, draft_token_num=columns)
    )


def _assign_slots(  # noqa: PLR0917 — SGLang's signature
    req_pool_indices: torch.Tensor,
    req_to_token: torch.Tensor,
    start_offset: torch.Tensor,
    end_offset: torch.Tensor,
    out_cache_loc: torch.Tensor,
    batch_size: int,
) -> None:
    begin = 0
    spans = zip(req_pool_indices.tolist(), start_offset.tolist(), end_offset.tolist(), strict=True)
    for request, start, end in spans:
        req_to_token[request, start:end] = out_cache_loc[begin : begin + end - start]
        begin += end - start


def _share_ends(model: Any, embed: Any, head: Any) -> None:
    """Give the draft model the target's embedding and head; SGLang's own also waits for a CUDA device."""
    del model.model.embed_tokens.weight
    del model.lm_head.weight
    model.model.embed_tokens.weight = embed
    model.lm_head.weight = head


def _draft_attention(factory: Any) -> Any:
    from engine.cpu.attention import PortableAttention  # noqa: PLC0415 — imports SGLang's layers
    from engine.cpu.portable import ATTENTION  # noqa: PLC0415

    backend: Any = PortableAttention(factory.draft_model_runner)
    backend.prefill_attention_backend_str = backend.decode_attention_backend_str = ATTENTION
    return backend


def _lay_out(  # noqa: PLR0917 — SGLang's signature
    parents: torch.Tensor,
    scores: torch.Tensor,
    lengths: torch.Tensor,
    mask: torch.Tensor,
    positions: torch.Tensor,
    index: torch.Tensor,
    next_token: torch.Tensor,
    next_sibling: torch.Tensor,
    topk: int,
    steps: int,
    width: int,
    mode: Any,
) -> None:
    """Describe rows of candidates: [requests, width]. The mask is left alone: our attention is causal."""
    columns = torch.arange(width)
    positions.copy_((lengths[:, None] + columns).reshape(-1))
    index.copy_(torch.arange(lengths.numel())[:, None] * width + columns)
    next_token[:, :-1] = columns[1:]
    next_token[:, -1] = -1
    next_sibling.fill_(-1)


def _accept(
    *,
    predicts: torch.Tensor,
    accept_index: torch.Tensor,
    accept_token_num: torch.Tensor,
    candidates: torch.Tensor,
    target_predict: torch.Tensor,
    **rest: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Keep the drafts that the target chose as well, up to the first that it did not, and its choice after them.

    candidates, target_predict (the likeliest tokens): [requests, width]. Set: predicts [requests * width], the
    choices; accept_index [requests, width], where in `predicts` the kept ones are, -1 behind them;
    accept_token_num [requests], kept drafts.
    """
    requests, width = candidates.shape
    now = _current.get()
    if not now.sampling.is_all_greedy:
        target_predict = _drawn(now, width)
    kept_drafts = (candidates[:, 1:] == target_predict[:, :-1]).long().cumprod(dim=1).sum(dim=1)
    columns = torch.arange(width)
    kept = columns <= kept_drafts[:, None]
    flat = torch.arange(requests)[:, None] * width + columns
    accept_token_num.copy_(kept_drafts)
    accept_index.copy_(flat.masked_fill(~kept, -1))
    predicts[flat[kept]] = target_predict[kept].to(predicts.dtype)
    return predicts, accept_index, accept_token_num


def _fill_last_accepted(
    accept_tokens: torch.Tensor, accept_lens: torch.Tensor, out: torch.Tensor, stride: int, requests: int
) -> None:
    rows = accept_tokens.reshape(requests, stride)
    out.copy_(rows.gather(1, accept_lens.long()[:, None] - 1)[:, 0])


def _verify(
    original: Any, verify_input: Any, batch: Any, logits_output: Any, *args: Any, **kwargs: Any
) -> Any:
    """Remember what `_accept` has to know; SGLang adds penalties and masks to these very logits before."""
    now = _Verification(verify_input.positions, logits_output.next_token_logits, batch.sampling_info)
    token = _current.set(now)
    try:
        return original(verify_input, batch, logits_output, *args, **kwargs)
    finally:
        _current.reset(token)


def _always(**kwargs: Any) -> bool:
    """Have SGLang compare drafts with the target's choices also where it samples: `_accept` makes them."""
    return True


def _drawn(now: _Verification, width: int) -> torch.Tensor:
    """Return [requests, width]: the target's token after each candidate, drawn as `SeededSampler` draws it."""

    def each(values: torch.Tensor) -> torch.Tensor:
        return values.repeat_interleave(width, dim=0)

    info = now.sampling
    probs = torch.softmax(now.logits / each(info.temperatures), dim=-1)
    if info.need_top_p_sampling or info.need_top_k_sampling or info.need_min_p_sampling:
        probs = sampling.keep_likely(probs, *map(each, (info.top_ks, info.top_ps, info.min_ps)))
    return sampling.draw(probs, sampling.uniforms(each(info.sampling_seed), now.positions)).view(-1, width)
