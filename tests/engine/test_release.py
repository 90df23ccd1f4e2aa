"""What is freed of SGLang's radix tree, and what stays: on both of its tree cores."""

from array import array
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.contract import EngineError
from engine.settings import EngineSettings
from engine.sglang_engine import SglangEngine

pytestmark = pytest.mark.sglang

POOL = 4096
HEAD = list(range(40))


class Tree:
    """SGLang's cache over a pool of POOL tokens, without a model."""

    def __init__(self, core: str, page: int = 1) -> None:
        from sglang.srt.mem_cache.allocator import PagedTokenToKVPoolAllocator, TokenToKVPoolAllocator
        from sglang.srt.mem_cache.cache_init_params import CacheInitParams
        from sglang.srt.mem_cache.unified_cache.component_type import ComponentType
        from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache

        self.page = page
        kind: Any = PagedTokenToKVPoolAllocator if page > 1 else TokenToKVPoolAllocator
        sizes = (POOL, page) if page > 1 else (POOL,)
        self.allocator = kind(*sizes, torch.float32, "cpu", None, False)
        self.cache = UnifiedRadixCache(
            CacheInitParams(
                disable=False,
                req_to_token_pool=cast(Any, None),
                token_to_kv_pool_allocator=self.allocator,
                page_size=page,
                tree_components=(ComponentType.FULL,),
                tree_core_backend=core,
            )
        )

    def key(self, ids, salt):
        from sglang.srt.mem_cache.radix_cache import RadixKey

        return RadixKey(array("q", ids), cache_salt=salt)

    def add(self, ids, salt="a"):
        """Insert as a finished request does: its own values, of which what is there already is given back."""
        from sglang.srt.mem_cache.base_prefix_cache import InsertParams

        whole = len(ids) // self.page * self.page
        before = self.hit(ids, salt)
        values = torch.cat([torch.zeros(before, dtype=torch.int64), self.allocator.alloc(whole - before)])
        params = InsertParams(key=self.key(ids[:whole], salt), value=values, prev_prefix_len=before)
        self.cache.insert(params)

    def match(self, ids, salt="a"):
        from sglang.srt.mem_cache.base_prefix_cache import MatchPrefixParams

        return self.cache.match_prefix(MatchPrefixParams(key=self.key(ids, salt)))

    def hit(self, ids, salt="a"):
        return self.match(ids, salt).device_prefix_len

    def release(self, ids, keep, salt="a"):
        from engine.release import release

        free = self.allocator.available_size()
        freed = release(self.cache, ids, keep, salt)
        self.cache.sanity_check()
        assert self.allocator.available_size() - free == freed
        assert (
            self.allocator.available_size() + self.cache.evictable_size() + self.cache.protected_size()
            == POOL
        )
        return freed


@pytest.fixture(params=["rust", "python"])
def tree(request):
    """Return an empty tree."""
    return Tree(request.param)


def test_what_others_begin_with_stays(tree):
    """Two conversations with the same instructions: one goes, the other keeps all of its own."""
    mine, other = [*HEAD, *range(100, 160)], [*HEAD, *range(200, 230)]
    tree.add(mine)
    tree.add(other)
    assert tree.release(mine, len(HEAD)) == 60
    assert (tree.hit(mine), tree.hit(other)) == (40, 70)
    assert tree.release(mine, len(HEAD)) == 0


def test_branches_and_what_an_abort_left_go_too(tree):
    """Tokens that were computed and never seen, in the middle of a conversation and at its end."""
    mine = [*HEAD, *range(100, 160)]
    for tail in ([], [7, 8], [9]):
        tree.add(mine + tail)
    tree.add([*mine[:70], 5, 5, 5])
    assert tree.release(mine, len(HEAD)) == 60 + 3 + 3
    assert tree.hit(mine) == 40


def test_everything_goes_with_keep_0(tree):
    """But not of another tenant."""
    mine = [*HEAD, *range(100, 160)]
    tree.add(mine, "a")
    tree.add(mine, "b")
    assert tree.release(mine, 0, "a") == 100
    assert (tree.hit(mine, "a"), tree.hit(mine, "b")) == (0, 100)
    assert tree.release([1, 2, 3], 0, "c") == 0


def test_what_a_request_uses_stays(tree):
    """A lock in the middle: what is behind it goes, what it covers stays until it is gone."""
    mine = [*HEAD, *range(100, 160)]
    tree.add(mine)
    node = tree.match(mine[:60]).last_device_node
    lock = tree.cache.tree_core.inc_lock_ref(node)
    assert tree.release(mine, 10) == 40
    assert tree.hit(mine) == 60
    tree.cache.tree_core.dec_lock_ref(node, lock.to_dec_params())
    assert tree.release(mine, 10) == 50
    assert tree.hit(mine) == 10


def test_longer_than_what_is_cached(tree):
    """Ids of which only the beginning is there still; ids of which nothing is."""
    mine = [*HEAD, *range(100, 160)]
    tree.add(mine[:80])
    assert tree.release(mine, 50) == 30
    assert tree.release(mine, 50) == 0
    assert tree.hit(mine) == 50


@pytest.mark.parametrize("core", ["rust", "python"])
def test_pages(core):
    """A page that is shared in part is not shared: `keep` counts whole ones."""
    tree = Tree(core, page=16)
    mine, other = [*range(40), *range(100, 160)], [*range(40), *range(200, 230)]
    tree.add(mine)
    tree.add(other)
    assert tree.release(mine, 40) == 96 - 32
    assert (tree.hit(mine), tree.hit(other)) == (32, 64)


@settings(max_examples=60, deadline=None)
@given(
    core=st.sampled_from(["rust", "python"]),
    sequences=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=24), min_size=1, max_size=12),
    which=st.integers(0, 11),
)
def test_others_lose_nothing(core, sequences, which):
    """Whatever is in the tree: with `keep` = what others share, others keep every token, and the rest goes."""
    mine = sequences[which % len(sequences)]
    others = [other for other in sequences if other != mine]
    tree = Tree(core)
    for ids in sequences:
        tree.add(ids)
    keep = max((common(mine, other) for other in others), default=0)
    expected = len(mine) - keep
    assert tree.release(mine, keep) == expected
    assert tree.hit(mine) == keep
    assert all(tree.hit(other) == len(other) for other in others)


def common(a, b) -> int:
    """Return the length of the longest common prefix."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


async def test_host_copies_are_not_passed_over():
    """With HiCache a copy would stay: the engine says so instead of telling a number."""
    engine = SglangEngine(EngineSettings(Path(), "m", extra={"enable_hierarchical_cache": True}))
    with pytest.raises(EngineError, match="HiCache keeps copies in host memory"):
        await engine.release((1, 2, 3), 0)
