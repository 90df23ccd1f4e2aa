"""Prefixes that wait to be made, one of each conversation, and whether the turns leave room for one now.

no turn                 any prefix, oldest first
turns that answer       those that are due
a turn that starts      none
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

MAX_WANTED = 64
"""Prefixes that wait; past it the one that waits longest is dropped: its turn computes it itself."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """What to have in the cache, and whose it is. `cut`, `leaf`: see `Known`.

    `due`: the conversation's next turn will need it.
    """

    conversation: str
    salt: str
    ids: tuple[int, ...]
    cut: str | None = None
    leaf: str | None = None
    due: bool = False


class Wanted:
    """A bounded queue by conversation, and the turns that go before it. A turn is any object, told by identity."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, Prefix] = OrderedDict()
        self._starting: set[object] = set()
        self._answering: set[object] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def beside(self) -> bool:
        """Whether answers are being written: idle work then is work beside them."""
        return bool(self._answering)

    def starts(self, turn: object, conversation: str | None) -> None:
        """A turn begins; what waits for its conversation is dropped, as the turn computes it itself."""
        self._starting.add(turn)
        if conversation is not None:
            self.drop(conversation)

    def answers(self, turn: object) -> bool:
        """A turn that started has its first token; return False if it had one before, or is over."""
        if turn not in self._starting:
            return False
        self._starting.discard(turn)
        self._answering.add(turn)
        return True

    def ends(self, turn: object) -> None:
        """A turn is over."""
        self._starting.discard(turn)
        self._answering.discard(turn)

    def put(self, prefix: Prefix) -> None:
        """Have a prefix wait; it takes the place of the conversation's earlier one."""
        self.drop(prefix.conversation)
        self._waiting[prefix.conversation] = prefix
        if len(self._waiting) > MAX_WANTED:
            self._waiting.popitem(last=False)

    def put_back(self, prefix: Prefix) -> None:
        """Have one go on that was begun, unless the conversation has a newer one: it is the next."""
        if prefix.conversation not in self._waiting:
            self._waiting[prefix.conversation] = prefix
            self._waiting.move_to_end(prefix.conversation, last=False)

    def drop(self, conversation: str) -> None:
        """Forget what waits for a conversation."""
        self._waiting.pop(conversation, None)

    def next(self) -> Prefix | None:
        """Return what may be made now; it stays in the queue."""
        if self._starting:
            return None
        return next((p for p in self._waiting.values() if p.due or not self._answering), None)
