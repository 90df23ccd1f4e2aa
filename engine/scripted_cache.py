"""The scripted engine's KV cache: which prefixes are there, as a radix tree would have them."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import accumulate


class PrefixCache:
    """Prefixes by their hash, per salt; the least recently used are evicted first. `capacity` in tokens."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._states: OrderedDict[int, tuple[int, ...]] = OrderedDict()
        """State -> the states that follow it; some of those may have been evicted."""

    def __len__(self) -> int:
        return len(self._states)

    def enter(self, salt: str, ids: Iterable[int]) -> tuple[int, list[int]]:
        """Add every prefix of `ids`; return how many of its tokens were cached, and its path."""
        path = _states(hash(salt), ids)
        return self._add(path), path

    def extend(self, path: list[int], ids: Iterable[int]) -> None:
        """Add every prefix of a sequence that entered and its continuation. Modifies `path`."""
        path += _states(path[-1], ids)
        self._add(path)

    def _add(self, states: Sequence[int]) -> int:
        """Add the states of one sequence; return how many of the first ones were there."""
        # what is cached is closed under prefixes
        known = bisect_left(range(len(states)), True, key=lambda i: states[i] not in self._states)
        follower = None
        # Leaves first: what is evicted first must be the ends of prefixes, not their beginnings.
        for state in reversed(states[max(known - 1, 0) :]):
            followers = self._states.pop(state, ())
            if follower is not None and follower not in followers:
                followers = (*followers, follower)
            self._states[state] = followers
            follower = state
        for state in reversed(states[: max(known - 1, 0)]):  # these have their followers
            self._states.move_to_end(state)
        while len(self._states) > self._capacity:
            self._states.popitem(last=False)
        return known

    def release(self, salt: str, ids: Sequence[int], keep: int, used: Iterable[Sequence[int]]) -> int:
        """Remove what begins with `ids[:keep + 1]`, from there on, but for prefixes of `used`; return how many."""
        path = _states(hash(salt), ids[: keep + 1])
        if len(path) <= keep:
            return 0
        kept = {state for sequence in used for state in _states(hash(salt), sequence)}
        going, removed = [path[keep]], 0
        while going:
            state = going.pop()
            followers = self._states.get(state)
            if followers is None:
                continue
            going += followers
            if state not in kept:
                del self._states[state]
                removed += 1
        return removed


def _states(state: int, ids: Iterable[int]) -> list[int]:
    """Return the state after each id, which names the prefix that ends there."""
    return list(accumulate(ids, _follow, initial=state))[1:]


def _follow(state: int, token: int) -> int:
    return hash((state, token))
