"""What this engine's KV cache should hold: the prompts that were computed here, with their answers.

A model of the cache, not the cache: the engine may have evicted more. It errs to the low side, because it
counts what two sequences share twice, and forgets the least recently used ones past the pool's size.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

BRANCHES = 4
"""Sequences that are remembered of one conversation."""
NEIGHBOURS = 64
"""Sequences of other conversations that are looked at for one that has none: a fork's, say."""

Key = tuple[str, str, int]
"""(salt, conversation, number)."""


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """One sequence. `cut`: the item that its prompt began with behind the instructions; `leaf`: its newest item.

    A conversation and a cut together are what SGLang would call a session: they come and go as one.
    """

    ids: array[int]
    cut: str | None = None
    leaf: str | None = None


class Published:
    """Sequences of token ids by salt and conversation. `capacity`: of the KV pool; `page`: its pages, in tokens."""

    def __init__(self, capacity: int, page: int) -> None:
        self._capacity = capacity
        self._page = page
        self._tokens = 0
        self._known: OrderedDict[Key, Known] = OrderedDict()
        self._numbers: dict[tuple[str, str], list[int]] = {}
        self._next = 0

    def add(
        self,
        salt: str,
        conversation: str,
        ids: Sequence[int],
        cut: str | None = None,
        leaf: str | None = None,
    ) -> None:
        """Remember a sequence whose KV was computed; those that it begins with are forgotten."""
        fresh = array("I", ids)
        numbers = self._numbers.setdefault((salt, conversation), [])
        for number in list(numbers):
            known = self._known[salt, conversation, number].ids
            if len(known) <= len(fresh) and fresh[: len(known)] == known:
                self._forget((salt, conversation, number))
        while len(numbers) >= BRANCHES:
            self._forget((salt, conversation, numbers[0]))
        self._next += 1
        self._numbers.setdefault((salt, conversation), numbers).append(self._next)
        self._known[salt, conversation, self._next] = Known(fresh, cut, leaf)
        self._tokens += len(fresh)
        while self._tokens > self._capacity:
            self._forget(next(iter(self._known)))

    def warm(self, salt: str, conversation: str, ids: Sequence[int]) -> int:
        """Return how many of the first tokens of `ids` should be in the cache, in whole pages."""
        wanted = array("I", ids)
        own = [known.ids for known in self.of(salt, conversation)]
        common = max((_common(known, wanted) for known in own or self._neighbours(salt)), default=0)
        return common - common % self._page

    def of(self, salt: str, conversation: str) -> list[Known]:
        """Return what is remembered of a conversation, oldest first."""
        return [
            self._known[salt, conversation, number] for number in self._numbers.get((salt, conversation), ())
        ]

    def withdraw(
        self,
        salt: str,
        conversation: str,
        gone: Callable[[Known], bool],
        kept: Sequence[Sequence[int]] = (),
    ) -> Iterator[tuple[array[int], int]]:
        """Forget a conversation's sequences that are gone; yield their ids, and how many of the first others need.

        Others: what else is remembered under the salt, of this conversation too, and `kept`.
        """
        going = [
            number
            for number in self._numbers.get((salt, conversation), ())
            if gone(self._known[salt, conversation, number])
        ]
        withdrawn = [self._forget((salt, conversation, number)).ids for number in going]
        others = [array("I", ids) for ids in kept]
        if withdrawn:
            others += [known.ids for key, known in self._known.items() if key[0] == salt]
        for ids in withdrawn:
            yield ids, max((_common(ids, other) for other in others), default=0)

    def _neighbours(self, salt: str) -> list[array[int]]:
        found = []
        for key in reversed(self._known):
            if key[0] == salt:
                found.append(self._known[key].ids)
                if len(found) == NEIGHBOURS:
                    break
        return found

    def _forget(self, key: Key) -> Known:
        known = self._known.pop(key)
        self._tokens -= len(known.ids)
        numbers = self._numbers[key[:2]]
        numbers.remove(key[2])
        if not numbers:
            del self._numbers[key[:2]]
        return known


def _common(a: array[int], b: array[int]) -> int:
    """Return the length of the longest common prefix, in growing blocks: arrays compare at the speed of memory."""
    at, high, end = 0, 0, min(len(a), len(b))
    while at == high:
        if at == end:
            return end
        high = min(2 * at + 32, end)
        if a[at:high] == b[at:high]:
            at = high
    while at + 1 < high:  # a[:at] is common, a[:high] is not
        middle = (at + high) // 2
        if a[at:middle] == b[at:middle]:
            at = middle
        else:
            high = middle
    return at
