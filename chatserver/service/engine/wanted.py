"""Prefixes that wait to be made, one of each conversation, and whether the turns leave room for one now.

no turn                 any prefix, first the one whose turn is expected first
turns that answer       those that a turn is sure to need, in the same order
a turn that starts      none
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from chatserver.service.engine.rhythm import Rhythm, share

MAX_WANTED = 64
"""Prefixes that wait; past it the one that is needed last is dropped: its turn computes it itself."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """What to have in the cache, and whose it is. `cut`, `leaf`: see `Known`.

    `turns`: how many turns of the conversation come before it is needed, that one counted in; 0: it may never be.
    `then`: what is wanted when it is there.
    """

    conversation: str
    salt: str
    ids: tuple[int, ...]
    cut: str | None = None
    leaf: str | None = None
    turns: int = 0
    then: Prefix | None = None


@dataclass(frozen=True, slots=True)
class _Waiting:
    """`left`: tokens of it that are still to be made; `due`: when its turn is expected."""

    prefix: Prefix
    left: int
    due: float


class Wanted:
    """A bounded queue by conversation, and the turns that go before it. A turn is any object, told by identity.

    `now` is the time in seconds, of a clock that does not go back. `room`: conversations whose prompts are in the KV
    cache twice, behind the old cut and behind the new one, without any of them pushing another out.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._waiting: dict[str, _Waiting] = {}
        self._starting: dict[object, str | None] = {}
        self._answering: dict[object, str | None] = {}
        self._rhythm = Rhythm()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def beside(self) -> bool:
        """Whether answers are being written: idle work then is work beside them."""
        return bool(self._answering)

    def starts(self, turn: object, conversation: str | None, now: float) -> None:
        """A turn begins; what waits for its conversation is dropped, as the turn computes it itself."""
        self._starting[turn] = conversation
        if conversation is not None:
            self.drop(conversation)
            self._rhythm.begins(conversation, now)

    def answers(self, turn: object) -> bool:
        """A turn that started has its first token; return False if it had one before, or is over."""
        if turn not in self._starting:
            return False
        self._answering[turn] = self._starting.pop(turn)
        return True

    def ends(self, turn: object, now: float) -> None:
        """A turn is over."""
        conversation = self._starting.pop(turn, None) or self._answering.pop(turn, None)
        if conversation is not None:
            self._rhythm.ends(conversation, now)

    def put(self, prefix: Prefix, left: int, now: float) -> None:
        """Have a prefix wait of which `left` tokens are missing; it takes the place of the conversation's earlier one.

        What is needed only after the next turn is not taken where nobody else is, as the last pause is long enough
        then, nor where it might push out what others need sooner.
        """
        if prefix.turns > 1 and not 0 < self._rhythm.others(prefix.conversation, now) < self._room:
            return
        due = self._rhythm.expects(prefix.conversation, prefix.turns, now) if prefix.turns else math.inf
        self._waiting[prefix.conversation] = _Waiting(prefix, left, due)
        if len(self._waiting) > MAX_WANTED:
            self.drop(max(self._waiting.items(), key=lambda waiting: waiting[1].due)[0])

    def put_back(self, prefix: Prefix, left: int, now: float) -> None:
        """Have one go on that was begun, unless the conversation has a newer one."""
        if prefix.conversation not in self._waiting:
            self.put(prefix, left, now)

    def drop(self, conversation: str) -> None:
        """Forget what waits for a conversation."""
        self._waiting.pop(conversation, None)

    def next(self) -> Prefix | None:
        """Return what may be made now; it stays in the queue."""
        if self._starting:
            return None
        allowed = [one for one in self._waiting.values() if one.prefix.turns or not self._answering]
        return min(allowed, key=lambda one: one.due).prefix if allowed else None

    def share(self, now: float, speed: float, least: float) -> float:
        """Return the share of the time that idle work needs to be in time, at `speed` tokens a second."""
        needed = [(one.due, one.left / speed) for one in self._waiting.values() if one.prefix.turns]
        return share(needed, now, least)
