"""The scripted engine's KV cache: which prefixes are there, as a radix tree would have them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

from engine.scripted_script import fold, start


class PrefixCache:
    """Prefixes by folded state, per salt; the least recently used are evicted first. `capacity` in tokens."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._states: OrderedDict[int, tuple[int, ...]] = OrderedDict()
        """State -> the states that follow it; some of those may have been evicted."""

    def __len__(self) -> int:
        return len(self._states)

    def match(self, salt: str, ids: Sequence[int]) -> int:
        """Return how many tokens of a prompt are cached; the last one is always computed."""
        state = start(salt)
        for i, token in enumerate(ids[:-1]):
            state = fold(state, token)
            if state not in self._states:
                return i
        return max(len(ids) - 1, 0)

    def insert(self, salt: str, ids: Iterable[int]) -> None:
        """Add every prefix of `ids`."""
        states = list(_states(salt, ids))
        follower = None
        # Leaves first: what is evicted first must be the ends of prefixes, not their beginnings.
        for state in reversed(states):
            followers = self._states.get(state, ())
            if follower is not None and follower not in followers:
                followers = (*followers, follower)
            self._states[state] = followers
            self._states.move_to_end(state)
            follower = state
        while len(self._states) > self._capacity:
            self._states.popitem(last=False)

    def release(self, salt: str, ids: Sequence[int], keep: int, used: Iterable[Sequence[int]]) -> int:
        """Remove what begins with `ids[:keep + 1]`, from there on, but for prefixes of `used`; return how many."""
        path = list(_states(salt, ids[: keep + 1]))
        if len(path) <= keep:
            return 0
        kept = {state for sequence in used for state in _states(salt, sequence)}
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


def _states(salt: str, ids: Iterable[int]) -> Iterator[int]:
    """Yield the state after each id."""
    state = start(salt)
    for token in ids:
        state = fold(state, token)
        yield state
