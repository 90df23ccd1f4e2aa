"""Frees cached prefixes in SGLang's radix tree that nobody will ask for again. Runs in the schedulers.

    ids    0 ………………… keep ………………………… len(ids)
           shared, stays │ freed, with every branch that begins here
                          └── unless a running request uses it

SGLang evicts only by age. What a deleted conversation or a cut leaves behind would stay until it is the oldest.
This works through the interface that SGLang's tree cores share (`UnifiedTreeCoreInterface`), written in Rust or
Python, and like its own eviction takes unlocked leaves only.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from sglang.srt.mem_cache.base_prefix_cache import MatchPrefixParams
from sglang.srt.mem_cache.radix_cache import RadixKey
from sglang.srt.mem_cache.unified_cache.component_type import ComponentType
from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache

_ALL = 2**31 - 1
"""More tokens than any pool has: the walk over leaves shall not end early."""


def release(cache: Any, ids: Sequence[int], keep: int, salt: str | None) -> int:
    """Free what is cached of sequences that begin with `ids[:keep + 1]`, from token `keep` on; return the tokens.

    Modifies `cache`. `keep` is rounded down to a page, as nothing shares a part of one. Returns 0 for caches
    that are not SGLang's unified tree. With HiCache the engine refuses before: host copies would stay.
    """
    if not isinstance(cache, UnifiedRadixCache) or cache.disable:
        return 0
    core = cache.tree_core
    # Speculation keys the tree by pairs of tokens: `keep` common tokens are one pair less.
    boundary = max(0, keep - 1) if core.is_eagle else keep
    boundary -= boundary % cache.page_size
    _match(cache, ids[: keep - keep % cache.page_size], salt)  # splits the node at the boundary
    end = _match(cache, ids, salt).last_device_node
    path = [] if core.is_root(end) else core.collect_path_info([end])[0]
    top = next((node.node_id for node in path if node.path_start >= boundary), None)
    if top is None:
        return 0
    freed = dict.fromkeys(cache.tree_components, 0)
    for leaf in _leaves(core):
        _free_upwards(cache, core.collect_path_info([leaf])[0], top, freed)
    return freed[ComponentType.FULL]


def _match(cache: Any, ids: Sequence[int], salt: str | None) -> Any:
    return cache.match_prefix(MatchPrefixParams(key=RadixKey(array("q", ids), cache_salt=salt)))


def _leaves(core: Any) -> list[int]:
    """Return the leaves that could be evicted. SGLang's eviction walk only names them, one by one."""
    found = []
    core.evict_device_start(ComponentType.FULL, _ALL)
    try:
        while True:
            step = core.evict_device_next_node(ComponentType.FULL, {ComponentType.FULL: 0})
            if step.node_id is None:
                return found
            found.append(step.node_id)
    finally:
        core.evict_device_end(ComponentType.FULL)


def _free_upwards(cache: Any, path: Sequence[Any], top: int, freed: dict[Any, int]) -> None:
    """Free the leaf at the end of `path` and what then is a leaf above it, `top` included; nothing if not under it."""
    ids = [node.node_id for node in path]
    if top not in ids:
        return
    for node_id in reversed(ids[ids.index(top) :]):
        # Asked again: the leaves before this one may have gone, or may still be there.
        children = cache.tree_core.collect_path_info([node_id])[0][-1].num_children
        if children or _locked(cache.tree_core, node_id):
            return
        cache._evict_device_leaf(node_id, freed)


def _locked(core: Any, node_id: int) -> bool:
    """Say whether a running request uses a node: another lock then protects no token more."""
    lock = core.inc_lock_ref(node_id)
    core.dec_lock_ref(node_id, lock.to_dec_params())
    return not lock.delta
