"""How a model is spread over GPUs, and which spreads are impossible. Pure; keys are ServerArgs' names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine.architecture import BLOCK, Architecture, Split
from engine.contract import ModelUnusable

DISPATCH_TOKENS = "SGLANG_DEEPEP_NUM_MAX_DISPATCH_TOKENS_PER_RANK"
"""Environment variable: tokens that a rank may send to the experts in one decode step."""
_DISPATCH_DEFAULT = 128
_ALL_TO_ALL = ("deepep", "deepep_v2", "mooncake", "nixl", "megamoe")
"""Values of moe_a2a_backend with which every rank holds whole experts and a whole shared expert."""


class ProfileRefused(ModelUnusable):
    """A profile or a spread that cannot run; the message begins with the key that is wrong."""


@dataclass(frozen=True, slots=True)
class Parallelism:
    """A spread over `tp` GPUs. `attention_dp`: groups that each hold other conversations (SGLang: attn_dp_size).

    `dense_dp`: dense layers whole on every rank. `head_dp`: the vocabulary projection divided within an
    attention group only. `all_to_all`: tokens travel to whole experts. `redundant`: spare copies of experts.
    `draft`: speculation with the model's own draft layers.
    """

    tp: int = 1
    ep: int = 1
    attention_dp: int = 1
    nodes: int = 1
    redundant: int = 0
    dense_dp: bool = False
    head_dp: bool = False
    all_to_all: bool = False
    draft: bool = False

    @property
    def attention_tp(self) -> int:
        """Return among how many ranks the heads of one conversation are divided."""
        return self.tp // self.attention_dp

    def experts_held(self, experts: int) -> int:
        """Return how many experts one rank holds, spare copies included."""
        return (experts + self.redundant) // self.ep

    def ranks(self, split: Split) -> int:
        """Return among how many ranks a weight is divided; for experts, each of those that a rank holds."""
        return {
            Split.NONE: 1,
            Split.ATTENTION: self.attention_tp,
            Split.EMBEDDING: self.attention_tp,
            Split.HEAD: self.attention_tp if self.head_dp else self.tp,
            Split.DENSE: 1 if self.dense_dp else self.tp,
            Split.SHARED: 1 if self.all_to_all else self.tp,
            Split.EXPERTS: self.tp // self.ep,
        }[split]


def parallelism(arguments: Mapping[str, Any]) -> Parallelism:
    """Return the spread that arguments of ServerArgs ask for. Raises ProfileRefused if they are no spread."""
    tp, nodes = _count(arguments, "tp_size"), _count(arguments, "nnodes")
    all_to_all = arguments.get("moe_a2a_backend") in _ALL_TO_ALL
    old = _count(arguments, "dp_size") if arguments.get("enable_dp_attention") else 1
    spread = Parallelism(
        tp=tp,
        ep=_count(arguments, "ep_size", tp if all_to_all else 1),
        attention_dp=_count(arguments, "attn_dp_size", old),
        nodes=nodes,
        redundant=_count(arguments, "ep_num_redundant_experts", 0, least=0),
        dense_dp=arguments.get("moe_dense_tp_size") == 1,
        head_dp=bool(arguments.get("enable_dp_lm_head")),
        all_to_all=all_to_all,
        draft=arguments.get("speculative_algorithm") in ("EAGLE", "NEXTN"),
    )
    if _count(arguments, "dp_size") > 1 and not arguments.get("enable_dp_attention"):
        raise ProfileRefused(
            "dp_size: one engine serves one replica; run one engine for each, or set attn_dp_size"
        )
    if _count(arguments, "pp_size") > 1:
        raise ProfileRefused("pp_size: expected 1, pipeline stages are not planned for")
    _divides("tp_size", tp, nodes, "nodes (nnodes)")
    _divides("tp_size", tp, spread.attention_dp, "attention groups (attn_dp_size)")
    _divides("tp_size", tp, spread.ep, "expert ranks (ep_size)")
    if all_to_all and spread.ep != tp:
        raise ProfileRefused(
            f"ep_size: expected {tp}, the tp_size, with an all-to-all back end, got {spread.ep}"
        )
    return spread


def check(model: Architecture, spread: Parallelism, arguments: Mapping[str, Any]) -> None:
    """Raise ProfileRefused for the first thing that makes `spread` impossible for `model`."""
    for key, problem in _problems(model, spread, arguments):
        raise ProfileRefused(f"{key}: {problem}")


def check_dispatch(spread: Parallelism, arguments: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    """Raise ProfileRefused if a decode step can hold more tokens than DeepEP's buffers, which would crash it."""
    if arguments.get("moe_a2a_backend") != "deepep" or arguments.get("disaggregation_mode") == "prefill":
        return
    text = environ.get(DISPATCH_TOKENS, str(_DISPATCH_DEFAULT))
    if not text.isdigit():
        raise ProfileRefused(f"{DISPATCH_TOKENS}: expected a count, got {text!r}")
    requests = arguments.get("cuda_graph_max_bs_decode")
    if requests is None:
        raise ProfileRefused("cuda_graph_max_bs_decode: must be set with moe_a2a_backend = deepep")
    tokens = requests * (arguments.get("speculative_num_draft_tokens", 1) if spread.draft else 1)
    if tokens > int(text):
        raise ProfileRefused(
            f"cuda_graph_max_bs_decode: {requests} requests make {tokens} tokens a step, "
            f"{DISPATCH_TOKENS} allows {text}"
        )


def _problems(
    model: Architecture, spread: Parallelism, arguments: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    heads = spread.attention_tp
    if model.heads % heads:
        yield "tp_size", f"{model.heads} attention heads cannot be divided among {heads} ranks"
    if model.latent is None and model.kv_heads % heads and heads % model.kv_heads:
        yield "tp_size", f"{model.kv_heads} KV heads cannot be divided among {heads} ranks"
    yield from _expert_problems(model, spread)
    dense = spread.ranks(Split.DENSE)
    if not _divisible(model.intermediate, dense, model.fp8):
        yield (
            "moe_dense_tp_size",
            f"dense layers of width {model.intermediate} cannot be divided among {dense} ranks; set it to 1",
        )
    if spread.draft and not model.draft_layers and not arguments.get("speculative_draft_model_path"):
        yield "speculative_algorithm", "the model has no draft (MTP) layer, and no draft model is given"
    context = arguments.get("context_length")
    if context is not None and context > model.context:
        yield "context_length", f"{context} tokens were asked for, the model has {model.context}"


def _expert_problems(model: Architecture, spread: Parallelism) -> Iterator[tuple[str, str]]:
    if not model.experts:
        if spread.ep > 1 or spread.redundant or spread.all_to_all:
            yield "ep_size", "the model has no experts"
        return
    held = model.experts + spread.redundant
    if held % spread.ep:
        spare = f" and {spread.redundant} redundant ones" if spread.redundant else ""
        more = -(-held // spread.ep) * spread.ep - model.experts
        yield (
            "ep_size",
            f"{model.experts} experts{spare} cannot be divided among {spread.ep} ranks; "
            f"ep_num_redundant_experts = {more} would",
        )
    each = spread.ranks(Split.EXPERTS)
    if not _divisible(model.moe_intermediate, each, model.fp8):
        yield (
            "ep_size",
            f"experts of width {model.moe_intermediate} cannot be divided among {each} ranks; raise ep_size",
        )


def _divisible(width: int, ranks: int, fp8: bool) -> bool:
    """Say whether each rank gets a whole share, in whole blocks if the weights are FP8."""
    return width % ranks == 0 and (not fp8 or (width // ranks) % BLOCK == 0)


def _divides(key: str, value: int, by: int, what: str) -> None:
    if value % by:
        raise ProfileRefused(f"{key}: {value} cannot be divided among {by} {what}")


def _count(arguments: Mapping[str, Any], key: str, default: int = 1, *, least: int = 1) -> int:
    value = arguments.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ProfileRefused(f"{key}: expected a whole number of at least {least}, got {value!r}")
    return value
