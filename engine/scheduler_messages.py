"""What this program asks of SGLang's schedulers that SGLang has no message for, and their answers.

    Runtime.ask ── ReleaseReqInput ──> every rank frees the same leaves ── ReleaseReqOutput ──> tokens
                └─ PoolReqInput ─────> counts its KV pool ─────────────── PoolReqOutput ───> PoolState

Both ways through SGLang's own seams: `hook_custom_types` for the form on the wire, the hook registry for the
schedulers' dispatcher. Importing this module registers the messages in whatever process it is; `install` the
answers, in a scheduler.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sglang.srt.managers.io_struct import BaseReq, hook_custom_types
from sglang.srt.plugins.hook_registry import HookRegistry, HookType
from sglang.utils import TypeBasedDispatcher

_DISPATCHER = "sglang.srt.managers.scheduler.Scheduler.init_request_dispatcher"


class ReleaseReqInput(BaseReq, kw_only=True):
    """Free what is cached of sequences that begin with `ids[:keep + 1]`, from token `keep` on."""

    ids: list[int]
    keep: int
    salt: str | None = None


class ReleaseReqOutput(BaseReq, kw_only=True):
    """How many tokens one attention group freed."""

    tokens: int


class PoolReqInput(BaseReq, kw_only=True):
    """Count the KV pool."""


class PoolReqOutput(BaseReq, kw_only=True):
    """One attention group's pool in tokens; see `PoolState`. `idle`: nothing runs, so nothing may be missing."""

    idle: bool
    free: int
    cached: int
    total: int


hook_custom_types(ReleaseReqInput, ReleaseReqOutput, PoolReqInput, PoolReqOutput)


@dataclass(frozen=True, slots=True)
class PoolState:
    """A KV pool while nothing runs, in tokens: `free` + `cached` (prefixes that can be evicted) + `leaked` = `total`.

    What is leaked is neither free nor in the tree, or is locked there by nobody.
    """

    free: int
    cached: int
    total: int
    leaked: int


def pool_state(answers: list[PoolReqOutput]) -> PoolState | None:
    """Return the state of all groups' pools together; None while one of them works."""
    if not all(answer.idle for answer in answers):
        return None
    free, cached, total = (sum(getattr(a, name) for a in answers) for name in ("free", "cached", "total"))
    return PoolState(free, cached, total, leaked=total - free - cached)


def install() -> None:
    """Have the scheduler of this process answer these messages. Before it is made."""
    HookRegistry.register(_DISPATCHER, _add_answers, HookType.AFTER)


def _add_answers(result: None, scheduler: Any) -> None:
    scheduler._request_dispatcher += TypeBasedDispatcher(
        [
            (ReleaseReqInput, lambda ask: _release(scheduler, ask)),
            (PoolReqInput, lambda ask: _count(scheduler, ask)),
        ]
    )


def _release(scheduler: Any, ask: ReleaseReqInput) -> ReleaseReqOutput:
    from engine.release import release  # noqa: PLC0415 — only schedulers have a tree

    return ReleaseReqOutput(rid=ask.rid, tokens=release(scheduler.tree_cache, ask.ids, ask.keep, ask.salt))


def _count(scheduler: Any, ask: PoolReqInput) -> PoolReqOutput:
    stats = scheduler.pool_stats_observer.get_pool_stats()
    return PoolReqOutput(
        rid=ask.rid,
        idle=scheduler.is_fully_idle(),
        free=stats.full_available_size,
        cached=stats.full_evictable_size,
        total=stats.full_capacity or scheduler.max_total_num_tokens,
    )
