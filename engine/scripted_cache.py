"""The scripted engine's KV cache: which prefixes are there, as a radix tree would have them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from engine.scripted_script import fold, start


class PrefixCache:
    """Prefixes by folded state, per salt; the least recently used are evicted first. `capacity` in tokens."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._states: OrderedDict[int, None] = OrderedDict()

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
        states = []
        state = start(salt)
        for token in ids:
            state = fold(state, token)
            states.append(state)
        # Leaves first: what is evicted first must be the ends of prefixes, not their beginnings.
        for state in reversed(states):
            self._states[state] = None
            self._states.move_to_end(state)
        while len(self._states) > self._capacity:
            self._states.popitem(last=False)
