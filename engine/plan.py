"""Does a model fit, and how much fits beside it: memory of each GPU, tokens, conversations.

    memory of a GPU = runtime + weights + KV cache + kept free
                      ├─ mem_fraction_static ───────┤├ the rest ┤

Pure arithmetic, exact for weights and KV cache; two figures are SGLang's or ours to choose: what is kept free
for activations and graphs (its mem_fraction_static, or its own rule for it), and RUNTIME.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from engine.architecture import Architecture, Split
from engine.parallelism import Parallelism, ProfileRefused, check, parallelism
from engine.profile import Profile, load, names
from engine.published.tables import GPUS, Gpu

GIB = 2**30
MIB = 2**20
RUNTIME = 3 * GIB // 2
"""Bytes of a GPU that CUDA's context and NCCL take before a weight is loaded. An assumption, on the safe side."""
HOST_RUNTIME = 2 * GIB
"""Bytes of host memory for the processes of this program, where the model runs on the CPU."""
MEAN_CONVERSATION = 4989
"""Mean KV length in tokens over all decode steps of DeepSeek's service (inference system overview)."""
KV_WIDTHS = {"auto": None, "bfloat16": 2, "fp8_e4m3": 1, "fp8_e5m2": 1}
"""Values of kv_cache_dtype -> bytes of a number; None: as the model computes."""
GPUS_PER_NODE = 8
SHARE = 0.85
"""mem_fraction_static where no profile says, on GPUs of 60 GiB and more or with attention groups. SGLang's own rule
keeps 3 MiB free for each request and group, on 16 GPUs more than the KV cache; published recipes use 0.8 to 0.88."""
_REDUNDANT_FROM = 32
"""Expert ranks from which spare copies of the busiest experts are planned, 32 as in DeepSeek's own units."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What is to be planned. `context`: window in tokens. `width`: bytes of an unquantised number.

    `fraction`: mem_fraction_static, None = SGLang's rule. `chunk`: prompt tokens of a step, over all groups;
    `batch`: requests of a decode step, in one group. `role`: null, prefill or decode. `host_ratio`: host memory
    for HiCache, in sizes of the GPU's cache.
    """

    context: int
    spread: Parallelism
    kv_dtype: str = "auto"
    width: int = 2
    fraction: float | None = None
    chunk: int = 8192
    batch: int = 128
    role: str = "null"
    host_ratio: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The result, bytes for one GPU, tokens for one attention group. `weights`: (what, bytes), largest first."""

    model: Architecture
    gpu: Gpu
    ask: Ask
    fraction: float
    runtime: int
    weights: tuple[tuple[str, int], ...]
    kv_token: int
    kv: int
    free: int

    @property
    def weight_bytes(self) -> int:
        """Return the weights of one GPU."""
        return sum(size for _, size in self.weights)

    @property
    def group_tokens(self) -> int:
        """Return how many tokens the cache of one attention group holds."""
        return max(0, self.kv) // self.kv_token

    @property
    def tokens(self) -> int:
        """Return how many tokens all groups hold."""
        return self.group_tokens * self.ask.spread.attention_dp

    @property
    def host_bytes(self) -> int:
        """Return the host memory that HiCache takes on one node."""
        ranks = -(-self.ask.spread.tp // self.ask.spread.nodes)
        return int(max(0, self.kv) * self.ask.host_ratio) * ranks

    @property
    def fits(self) -> bool:
        """Say whether the weights and at least one whole window fit: a conversation lives in one group."""
        return self.group_tokens >= self.ask.context

    def conversations(self, length: int) -> int:
        """Return how many conversations of `length` tokens are cached at once."""
        return self.group_tokens // length * self.ask.spread.attention_dp


def plan(model: Architecture, gpu: Gpu, ask: Ask) -> Plan:
    """Return the arithmetic. Raises ProfileRefused for a spread or a window that is impossible for the model."""
    if ask.context > model.context:
        raise ProfileRefused(
            f"context_length: {ask.context} tokens were asked for, the model has {model.context}"
        )
    if ask.kv_dtype not in KV_WIDTHS:
        raise ProfileRefused(f"kv_cache_dtype: expected one of {', '.join(KV_WIDTHS)}, got {ask.kv_dtype!r}")
    check(model, ask.spread, {})
    weights = tuple(sorted(_weights(model, gpu, ask), key=lambda entry: -entry[1]))
    fraction = ask.fraction if ask.fraction is not None else static_fraction(model, gpu, ask)
    runtime = RUNTIME if gpu.fixed else HOST_RUNTIME
    usable = int((gpu.memory - runtime) * fraction)
    return Plan(
        model=model,
        gpu=gpu,
        ask=ask,
        fraction=fraction,
        runtime=runtime,
        weights=weights,
        kv_token=model.kv_bytes(
            KV_WIDTHS[ask.kv_dtype] or ask.width, ask.spread.attention_tp, draft=ask.spread.draft
        ),
        kv=usable - sum(size for _, size in weights),
        free=gpu.memory - runtime - usable,
    )


def static_fraction(model: Architecture, gpu: Gpu, ask: Ask) -> float:
    """Return mem_fraction_static as SGLang 0.5.23 sets it (`arg_groups/memory_hook.py`), without prefill graphs."""
    if not gpu.fixed:
        return 1.0
    spread, total = ask.spread, gpu.memory / MIB
    tokens = ask.batch * (2 if spread.draft else 1) if ask.role == "decode" else ask.chunk
    reserve = 512 + 1.5 * max(tokens, 2048) + spread.tp / 8 * 1024
    if ask.role != "prefill":
        reserve += 2 * ask.batch
        if spread.attention_dp > 1:
            reserve += ask.batch * spread.attention_dp * (4.5 if ask.batch > 300 else 3)
    if total > 60 * 1024:
        reserve = max(reserve, 10 * 1024)
    if spread.all_to_all and ask.role != "prefill":
        reserve += 2 * 1024
    return max(0.0, round((total - reserve) / total, 3))


def default_spread(
    model: Architecture, gpus: int, *, ep: int | None = None, redundant: int | None = None, draft: bool = True
) -> Parallelism:
    """Return the spread for throughput over `gpus` GPUs.

    Mixtures with latent attention: experts and conversations over all GPUs. Others: every matrix divided.
    Raises ProfileRefused.
    """
    if ep is not None and not model.experts:
        raise ProfileRefused("ep: the model has no experts")
    arguments: dict[str, Any] = {"tp_size": gpus, "nnodes": -(-gpus // GPUS_PER_NODE)}
    draft = draft and model.draft_layers > 0
    if draft:
        arguments["speculative_algorithm"] = "EAGLE"
    if model.latent is not None and gpus > 1:
        arguments |= {"attn_dp_size": gpus, "moe_dense_tp_size": 1, "enable_dp_lm_head": True}
    if model.experts and (gpus > 1 or ep is not None):
        arguments["ep_size"] = gpus if ep is None else ep
        if arguments["ep_size"] == gpus > 1:
            arguments["moe_a2a_backend"] = "deepep"
        spare = 32 if arguments["ep_size"] >= _REDUNDANT_FROM else 0
        arguments["ep_num_redundant_experts"] = spare if redundant is None else redundant
    return parallelism(arguments)


def default_ask(gpu: Gpu, spread: Parallelism, context: int, kv_dtype: str = "auto") -> Ask:
    """Return what to run with where no profile says: SGLang's chunk for this much memory, our share for KV."""
    chunk = 2048 if gpu.memory < 20 * GIB else 4096 if gpu.memory < 60 * GIB else 8192
    large = gpu.memory >= 60 * GIB or spread.attention_dp > 1
    return Ask(
        context,
        spread,
        kv_dtype,
        width=2 if gpu.fixed else 4,
        fraction=SHARE if large and gpu.fixed else None,
        chunk=chunk * spread.attention_dp,
        batch=max(16, 512 // spread.attention_dp) if spread.attention_dp > 1 else 128,
    )


def made_for(model: Architecture, gpu: Gpu, count: int) -> Profile | None:
    """Return the profile for the embedded engine that is made for this machine, if there is one."""
    for profile in map(load, names()):
        kind = GPUS.get(profile.gpu or "")
        if (
            profile.gpus == (count if gpu.fixed else 0)
            and profile.runs == "engine"
            and profile.family in ("any", model.family)
            and (kind is None or kind.memory == gpu.memory)
        ):
            return profile
    return None


def of_profile(profile: Profile, model: Architecture, context: int | None = None) -> Ask:
    """Return what a profile asks for. Raises ProfileRefused if it is impossible for the model."""
    arguments, spread = profile.arguments, profile.parallelism
    if profile.family not in ("any", model.family):
        raise ProfileRefused(
            f"profile {profile.name} is for {profile.family} models, this one is {model.family}"
        )
    asked = context or arguments.get("context_length") or model.context
    check(model, spread, {**arguments, "context_length": asked})
    return Ask(
        context=asked,
        spread=spread,
        kv_dtype=arguments.get("kv_cache_dtype", "auto"),
        width=4 if arguments.get("dtype") == "float32" else 2,
        fraction=arguments.get("mem_fraction_static"),
        chunk=arguments.get("chunked_prefill_size", 8192),
        batch=arguments.get("cuda_graph_max_bs_decode", arguments.get("max_running_requests", 256)),
        role=arguments.get("disaggregation_mode", "null"),
        host_ratio=arguments.get("hicache_ratio", 2.0) if arguments.get("enable_hierarchical_cache") else 0.0,
    )


def _weights(model: Architecture, gpu: Gpu, ask: Ask) -> Iterator[tuple[str, int]]:
    """Yield (what, bytes on one GPU)."""
    spread = ask.spread
    quantised = model.fp8 and gpu.fp8
    for part in model.parts:
        yield part.name, _share(part.bytes(ask.width, quantised), part.split, model, spread)
    if spread.draft:
        shares = (
            _share(part.bytes(ask.width, quantised), part.split, model, spread) for part in model.draft_parts
        )
        yield "draft layer (MTP)", sum(shares)


def _share(size: int, split: Split, model: Architecture, spread: Parallelism) -> int:
    held = spread.experts_held(model.experts) if split is Split.EXPERTS else 1
    return -(-size * held // spread.ranks(split))
