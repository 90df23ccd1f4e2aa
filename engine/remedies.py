"""What would make a plan fit: single changes of the same machine, then more or larger GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from engine.architecture import Architecture
from engine.parallelism import Parallelism, ProfileRefused
from engine.plan import KV_WIDTHS, Ask, Plan, default_ask, default_spread, made_for, of_profile, plan
from engine.published.tables import GPUS, Gpu

_COUNTS = (1, 2, 4, 8, 16, 32, 64)
_SMALLEST_WINDOW = 1024


@dataclass(frozen=True, slots=True)
class Remedy:
    """Options to give to `chatserver plan` instead, and how many tokens the cache then holds."""

    options: str
    tokens: int


def remedies(failed: Plan) -> tuple[Remedy, ...]:
    """Return what would make `failed` fit, the smallest change first; empty if no known GPU is enough."""
    found = [*_same_gpus(failed), *_other_gpus(failed)]
    if not any("--gpus" in remedy.options for remedy in found) and failed.gpu.fixed:
        found += _smallest(failed)
    return tuple(found)


def _same_gpus(failed: Plan) -> Iterator[Remedy]:
    ask = failed.ask
    window = failed.group_tokens // _SMALLEST_WINDOW * _SMALLEST_WINDOW
    if window:
        yield Remedy(f"--context {window}", failed.tokens)
    if ask.spread.draft:
        yield from _if_fits(failed, replace(ask, spread=replace(ask.spread, draft=False)), "--no-draft")
    if KV_WIDTHS[ask.kv_dtype] != 1 and failed.gpu.fixed:
        yield from _if_fits(failed, replace(ask, kv_dtype="fp8_e4m3"), "--kv-dtype fp8_e4m3")
    if ask.spread.attention_dp > 1:
        yield from _if_fits(failed, replace(ask, spread=_undivided(ask)), "--attention-dp 1")


def _other_gpus(failed: Plan) -> Iterator[Remedy]:
    """Yield more GPUs of the kind, and as many of the next larger kind."""
    tp = failed.ask.spread.tp
    for count in (count for count in _COUNTS if count > tp and failed.gpu.fixed):
        if remedy := _over(failed, failed.gpu, count):
            yield remedy
            break
    larger = (gpu for gpu in _by_memory() if gpu.memory > failed.gpu.memory and failed.gpu.fixed)
    for gpu in larger:
        if remedy := _over(failed, gpu, tp):
            yield remedy
            break


def _smallest(failed: Plan) -> Iterator[Remedy]:
    """Yield the least memory of any kind of GPU that is enough."""
    choices = sorted((gpu.memory * count, count, gpu.name) for gpu in _by_memory() for count in _COUNTS)
    for _, count, name in choices:
        if remedy := _over(failed, GPUS[name], count):
            yield remedy
            return


def _over(failed: Plan, gpu: Gpu, count: int) -> Remedy | None:
    """Return the remedy of `count` such GPUs, conversations divided among them or, if need be, shared."""
    ask, model = failed.ask, failed.model
    if profile := made_for(model, gpu, count):
        found = _plan(model, gpu, replace(of_profile(profile, model, ask.context), kv_dtype=ask.kv_dtype))
        if found and found.fits:
            return Remedy(f"--gpus {count}x{gpu.name}", found.tokens)
    try:
        spread = default_spread(model, count, draft=ask.spread.draft)
    except ProfileRefused:
        return None
    divided = default_ask(gpu, spread, ask.context, ask.kv_dtype)
    whole = replace(divided, spread=_undivided(divided))
    for candidate, options in ((divided, ""), (whole, " --attention-dp 1")):
        found = _plan(model, gpu, candidate)
        if found and found.fits:
            return Remedy(f"--gpus {count}x{gpu.name}{options}", found.tokens)
    return None


def _if_fits(failed: Plan, ask: Ask, options: str) -> Iterator[Remedy]:
    found = _plan(failed.model, failed.gpu, ask)
    if found and found.fits:
        yield Remedy(options, found.tokens)


def _undivided(ask: Ask) -> Parallelism:
    return replace(ask.spread, attention_dp=1, dense_dp=False, head_dp=False)


def _plan(model: Architecture, gpu: Gpu, ask: Ask) -> Plan | None:
    try:
        return plan(model, gpu, ask)
    except ProfileRefused:
        return None


def _by_memory() -> list[Gpu]:
    return sorted(GPUS.values(), key=lambda gpu: gpu.memory)
