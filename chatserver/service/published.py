"""What this engine's KV cache should hold: the prompts that were computed here, with their answers.

A model of the cache, not the cache: the engine may have evicted more. It errs to the low side, because it
counts what two sequences share twice, and forgets the least recently used ones past the pool's size.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence

BRANCHES = 4
"""Sequences that are remembered of one conversation."""
NEIGHBOURS = 64
"""Sequences of other conversations that are looked at for one that has none: a fork's, say."""

Key = tuple[str, str, int]
"""(salt, conversation, number)."""


class Published:
    """Sequences of token ids by salt and conversation. `capacity`: of the KV pool; `page`: its pages, in tokens."""

    def __init__(self, capacity: int, page: int) -> None:
        self._capacity = capacity
        self._page = page
        self._tokens = 0
        self._known: OrderedDict[Key, array[int]] = OrderedDict()
        self._numbers: dict[tuple[str, str], list[int]] = {}
        self._next = 0

    def add(self, salt: str, conversation: str, ids: Sequence[int]) -> None:
        """Remember a sequence whose KV was computed; those that it begins with are forgotten."""
        fresh = array("I", ids)
        numbers = self._numbers.setdefault((salt, conversation), [])
        for number in list(numbers):
            known = self._known[salt, conversation, number]
            if len(known) <= len(fresh) and fresh[: len(known)] == known:
                self._forget((salt, conversation, number))
        while len(numbers) >= BRANCHES:
            self._forget((salt, conversation, numbers[0]))
        self._next += 1
        self._numbers.setdefault((salt, conversation), numbers).append(self._next)
        self._known[salt, conversation, self._next] = fresh
        self._tokens += len(fresh)
        while self._tokens > self._capacity:
            self._forget(next(iter(self._known)))

    def warm(self, salt: str, conversation: str, ids: Sequence[int]) -> int:
        """Return how many of the first tokens of `ids` should be in the cache, in whole pages."""
        wanted = array("I", ids)
        own = [
            self._known[salt, conversation, number] for number in self._numbers.get((salt, conversation), ())
        ]
        common = max((_common(known, wanted) for known in own or self._neighbours(salt)), default=0)
        return common - common % self._page

    def forget(self, salt: str, conversation: str) -> int:
        """Forget a conversation; return how many tokens were remembered of it."""
        before = self._tokens
        for number in list(self._numbers.get((salt, conversation), ())):
            self._forget((salt, conversation, number))
        return before - self._tokens

    def _neighbours(self, salt: str) -> list[array[int]]:
        found = []
        for key in reversed(self._known):
            if key[0] == salt:
                found.append(self._known[key])
                if len(found) == NEIGHBOURS:
                    break
        return found

    def _forget(self, key: Key) -> None:
        self._tokens -= len(self._known.pop(key))
        numbers = self._numbers[key[:2]]
        numbers.remove(key[2])
        if not numbers:
            del self._numbers[key[:2]]


def _common(a: array[int], b: array[int]) -> int:
    """Return the length of the longest common prefix: bisecting, as arrays compare at the speed of memory."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while low + 1 < high:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
