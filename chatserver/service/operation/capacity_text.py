"""A plan as text and as JSON."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

from engine.models import known_models
from engine.plan import GIB, MEAN_CONVERSATION, Plan
from engine.profile import Profile
from engine.published.tables import RATES, Rate
from engine.remedies import remedies

_CONVERSATION = "the mean length in DeepSeek's service"


def lines(name: str, plan: Plan, profile: Profile | None) -> list[str]:
    """Return the plan as one reads it."""
    ask, count = plan.ask, plan.ask.spread.tp
    machine = f"{count} x {plan.gpu.name}" if plan.gpu.fixed else "this machine's CPU"
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    return [
        f"{name} on {machine}, window of {ask.context:,} tokens: {verdict}",
        "",
        *_how(plan, profile),
        "",
        *_memory(plan),
        "",
        *(_capacity(plan) if plan.fits else _remedies(plan)),
        *([*_expected(plan), *_commands(name, plan, profile)] if plan.fits else ()),
    ]


def as_json(name: str, plan: Plan, profile: Profile | None) -> dict[str, Any]:
    """Return the plan for programs; sizes in bytes, of one GPU."""
    spread = plan.ask.spread
    return {
        "model": name,
        "parameters": plan.model.parameters,
        "active_parameters": plan.model.active_parameters,
        "gpus": {"count": spread.tp, "kind": plan.gpu.name, "memory": plan.gpu.memory},
        "profile": profile.name if profile else None,
        "context": plan.ask.context,
        "fits": plan.fits,
        "settings": _settings(plan),
        "memory": {
            "runtime": plan.runtime,
            "weights": dict(plan.weights),
            "weights_total": plan.weight_bytes,
            "kv_cache": plan.kv,
            "kept_free": plan.free,
            "host_cache_per_node": plan.host_bytes,
        },
        "kv": {
            "bytes_per_token": plan.kv_token,
            "tokens_per_group": plan.group_tokens,
            "groups": spread.attention_dp,
            "tokens": plan.tokens,
            "whole_windows": plan.conversations(plan.ask.context),
            "mean_conversations": plan.conversations(MEAN_CONVERSATION),
            "mean_conversation_tokens": MEAN_CONVERSATION,
        },
        "published_rates": [_rate_json(rate) for rate in _rates(plan)],
        "remedies": [] if plan.fits else [{"options": r.options, "tokens": r.tokens} for r in remedies(plan)],
    }


def _how(plan: Plan, profile: Profile | None) -> list[str]:
    spread, model = plan.ask.spread, plan.model
    if not plan.gpu.fixed:
        return [f"settings      {_profile(profile)}"]
    words = [f"settings      {_profile(profile)}", f"              {_written(_settings(plan))}"]
    if model.experts:
        spare = f", {spread.redundant} of all are spare copies" if spread.redundant else ""
        share = spread.tp // spread.ep
        divided = f", each divided among {share} GPUs" if share > 1 else ""
        words.append(
            f"experts       {spread.experts_held(model.experts)} of {model.experts} on each GPU{divided}{spare}; "
            f"{model.active_parameters / 1e9:.1f} of {model.parameters / 1e9:.1f} billion parameters work on a token"
        )
    if spread.attention_dp > 1:
        words.append(
            f"attention     {spread.attention_dp} groups with conversations and caches of their own: "
            "turns must return to their group"
        )
    elif model.latent is not None and spread.tp > 1:
        words.append(f"attention     one group: each of the {spread.tp} GPUs holds the same latent cache")
    return words


def _memory(plan: Plan) -> list[str]:
    where = f"memory of one {plan.gpu.name}" if plan.gpu.fixed else "memory of this machine"
    rows = [
        (where, plan.gpu.memory, ""),
        ("  CUDA and NCCL" if plan.gpu.fixed else "  processes", plan.runtime, "assumed"),
        ("  weights", plan.weight_bytes, ""),
        *((f"    {name}", size, "") for name, size in plan.weights if size >= GIB // 100),
        ("  KV cache", max(0, plan.kv), f"{plan.kv_token:,} bytes a token"),
        ("  kept free", plan.free, f"mem_fraction_static {plan.fraction:g}" if plan.gpu.fixed else ""),
    ]
    return [f"{name:<32}{size / GIB:>9.2f} GiB  {note}".rstrip() for name, size, note in rows]


def _capacity(plan: Plan) -> list[str]:
    window = plan.conversations(plan.ask.context)
    each = f", {plan.group_tokens:,} in each group" if plan.ask.spread.attention_dp > 1 else ""
    result = [f"KV cache      {plan.tokens:,} tokens{each}", f"              {window:,} whole windows"]
    if plan.ask.context >= MEAN_CONVERSATION:
        many = plan.conversations(MEAN_CONVERSATION)
        result.append(
            f"              {many:,} conversations of {MEAN_CONVERSATION:,} tokens ({_CONVERSATION})"
        )
    if plan.host_bytes:
        host = f"{plan.ask.host_ratio:g} times as many, {plan.host_bytes / GIB:.0f} GiB a node"
        result.append(f"              in host memory {host}")
    return result


def _remedies(plan: Plan) -> list[str]:
    if plan.kv <= 0:
        missing = f"the weights need {-plan.kv / GIB:.1f} GiB more on each GPU than there are"
    else:
        missing = f"the cache holds {plan.group_tokens:,} tokens, one window has {plan.ask.context:,}"
    found = remedies(plan)
    if not found:
        return [f"why           {missing}", "what would    nothing that this program knows of"]
    rows = [f"{r.options:<36} {r.tokens:,} tokens" for r in found]
    return [f"why           {missing}", *_labelled("what would", rows)]


def _expected(plan: Plan) -> list[str]:
    rates = _rates(plan)
    if not rates:
        return ["rates         nothing published that fits; measure with: make bench NAME=engine"]
    rows: list[str] = []
    for rate in rates:
        rows += [_speed(rate, plan), f"  {rate.setup}; {rate.note}", f"  {rate.source}"]
    return _labelled("rates", ["what others measured, for a node of 8 GPUs:", *rows])


def _speed(rate: Rate, plan: Plan) -> str:
    nodes = plan.ask.spread.nodes
    larger = " (a larger unit: an upper bound here)" if rate.decode_unit > nodes else ""
    if rate.total:
        return f"{rate.gpu}: {rate.total:,} tokens/s, input and output together{larger}"
    return f"{rate.gpu}: {rate.prefill:,} input and {rate.decode:,} output tokens/s{larger}"


def _rates(plan: Plan) -> list[Rate]:
    """Return what was published for the model: that kind of GPU first. Small models of a family do not count."""
    if not plan.gpu.fixed or plan.model.parameters < 500e9:
        return []
    known = [rate for rate in RATES if rate.family == plan.model.family]
    return sorted(known, key=lambda rate: rate.gpu != plan.gpu.name)


def _rate_json(rate: Rate) -> dict[str, Any]:
    return {
        "gpu": rate.gpu,
        "prefill_tokens_per_second": rate.prefill,
        "decode_tokens_per_second": rate.decode,
        "total_tokens_per_second": rate.total,
        "per": "node of 8 GPUs",
        "setup": rate.setup,
        "note": rate.note,
        "source": rate.source,
    }


def _commands(name: str, plan: Plan, profile: Profile | None) -> list[str]:
    if profile is None:
        return []
    result = _labelled("note", profile.notes.splitlines()) if profile.notes else []
    if profile.runs == "engine":
        result += [_start(name, plan, profile)]
    if profile.runs != "engine" or profile.nodes > 1:
        where = "each node" if profile.runs != "engine" else "other nodes"
        variables = [f"{key}={shlex.quote(value)}" for key, value in profile.environment.items()]
        words = [*variables, *_as_planned(plan, profile).command("FOLDER")]
        result += ["", f"on {where}:", "  " + " ".join(words)]
    if profile.router:
        result += ["", "in front:", f"  {profile.router}"]
    return result


def _as_planned(plan: Plan, profile: Profile) -> Profile:
    """Return the profile with the plan's window and kind of cache: all nodes must agree on them."""
    arguments = {**profile.arguments, "context_length": plan.ask.context}
    if plan.ask.kv_dtype != "auto":
        arguments["kv_cache_dtype"] = plan.ask.kv_dtype
    return replace(profile, arguments=arguments)


def _start(name: str, plan: Plan, profile: Profile) -> str:
    """Return how to start what was planned: the profile, and what the plan has otherwise than it."""
    command = f"make serve MODEL={_served(name)}"
    if plan.ask.context != (profile.arguments.get("context_length") or plan.model.context):
        command += f" CONTEXT={plan.ask.context}"
    kind = plan.ask.kv_dtype
    if kind == profile.arguments.get("kv_cache_dtype", "auto"):
        return f"start         {command} PROFILE={profile.source or profile.name}"
    change = f'with kv_cache_dtype = "{kind}" in a copy of profile {profile.name}'
    return f"start         {change}: {command} PROFILE=COPY.toml"


def _settings(plan: Plan) -> dict[str, Any]:
    """Return the arguments of SGLang's ServerArgs that make this plan."""
    spread = plan.ask.spread
    wanted: dict[str, tuple[Any, Any]] = {
        "nnodes": (spread.nodes, 1),
        "tp_size": (spread.tp, 0),
        "ep_size": (spread.ep, 1),
        "attn_dp_size": (spread.attention_dp, 1),
        "moe_dense_tp_size": (1 if spread.dense_dp else None, None),
        "enable_dp_lm_head": (spread.head_dp, False),
        "moe_a2a_backend": ("deepep" if spread.all_to_all else None, None),
        "ep_num_redundant_experts": (spread.redundant, 0),
        "speculative_algorithm": ("EAGLE" if spread.draft else None, None),
        "kv_cache_dtype": (plan.ask.kv_dtype, "auto"),
        "mem_fraction_static": (plan.ask.fraction, None),
    }
    return {key: value for key, (value, default) in wanted.items() if value != default}


def _written(settings: dict[str, Any]) -> str:
    return ", ".join(key if value is True else f"{key} {value}" for key, value in settings.items())


def _profile(profile: Profile | None) -> str:
    return f"profile {profile.name}" if profile else "no profile is made for this; write one with"


def _served(name: str) -> str:
    """Return what MODEL= takes: a name that this program can prepare, or a folder."""
    return name if name in known_models() or "/" in name else "FOLDER"


def _labelled(label: str, rows: list[str]) -> list[str]:
    return [f"{label if number == 0 else '':<14}{row}" for number, row in enumerate(rows)]
