"""What the scripted engine writes: a pure function of all ids so far and a seed.

Ids are folded one by one into 64 bits; the next id is drawn from them. Feeding an answer's ids back in
therefore continues it exactly, whoever wrote them.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.scripted_tokenizer import END, END_THINK, IDS, THINK
from engine.scripted_words import OPENERS, WORDS

_BITS = (1 << 64) - 1
_START = 0x243F6A8885A308D3
_FACTOR, _STEP = 0x9E3779B97F4A7C15, 0x632BE59BD9B4E019
_WORD_IDS = tuple(IDS[f" {word}"] for word in WORDS)
_OPENER_IDS = tuple(IDS[f" {word}"] for word in OPENERS)
_FIRST_IDS = tuple(IDS[word] for word in OPENERS)
_STRONG_IDS = tuple(IDS[piece] for piece in (" **important**", " **note**", " `value`", " *really*"))
_PARAGRAPH = IDS["\n\n"]
_BULLET = IDS["\n- "]
_HEADING = IDS["## "]
_NEWLINE = IDS["\n"]
_STOP = ord(".")
_COMMA = ord(",")
_THINK, _END_THINK = IDS[THINK], IDS[END_THINK]
_MARKS = (_THINK, _END_THINK)
_BLANK = frozenset((_PARAGRAPH, _BULLET, _HEADING, _NEWLINE, *_MARKS))
"""After these a sentence begins without a space."""
_ENDS = _BLANK | {_STOP}
"""With these a sentence is over."""

_LONGEST = 12
_END_THINK_ODDS = 3
"""One sentence in so many ends the reasoning."""
_END_ODDS = 10
"""One sentence in so many ends the answer; with about 8 tokens a sentence the mean is 80 tokens."""


def fold(state: int, token: int) -> int:
    """Return the state after one more id."""
    state = ((state ^ token) * _FACTOR + _STEP) & _BITS
    return state ^ (state >> 29)


class Script:
    """Writes one answer. `state` covers the ids so far, without salt."""

    __slots__ = ("_last", "_seed", "_since", "_thinks", "state")

    def __init__(self, ids: Iterable[int], seed: int) -> None:
        self._seed = seed & _BITS
        state, since, last, thinks = _START, 0, -1, False  # `since`: ids since the sentence began
        for last in ids:  # `_take`, without a call for each
            state = ((state ^ last) * _FACTOR + _STEP) & _BITS
            state ^= state >> 29
            since = 0 if last in _ENDS else since + 1
            if last in _MARKS:
                thinks = last == _THINK
        self.state, self._since, self._last, self._thinks = state, since, last, thinks

    @property
    def thinks(self) -> bool:
        """Whether the reasoning has not ended yet."""
        return self._thinks

    def next(self, may_end: bool) -> int:
        """Return the next id and take it in. `may_end` False: the answer goes on for ever."""
        token = self._choose(may_end)
        self._take(token)
        return token

    def _take(self, token: int) -> None:
        self.state = fold(self.state, token)
        self._last = token
        self._since = 0 if token in _ENDS else self._since + 1
        if token in _MARKS:
            self._thinks = token == _THINK

    def _choose(self, may_end: bool) -> int:
        draw = fold(self.state, self._seed)
        pick, draw = draw >> 32, draw & 0xFFFFFFFF
        if self._last == _STOP:
            if self._thinks and draw % _END_THINK_ODDS == 0:
                return _END_THINK
            if may_end and not self._thinks and draw % _END_ODDS == 0:
                return END
            return self._after_sentence(draw // _END_ODDS, pick)
        if self._last in _BLANK:
            if self._last == _PARAGRAPH and draw % 9 == 0:
                return _HEADING
            return _FIRST_IDS[pick % len(_FIRST_IDS)]
        if self._last != _COMMA and (self._since >= _LONGEST or (self._since >= 4 and draw % 6 == 0)):
            return _STOP
        if 3 <= self._since < _LONGEST and draw % 13 == 1 and self._last != _COMMA:
            return _COMMA
        choices = _STRONG_IDS if draw % 41 == 2 else _WORD_IDS
        return choices[pick % len(choices)]

    @staticmethod
    def _after_sentence(draw: int, pick: int) -> int:
        if draw % 11 == 0:
            return _PARAGRAPH
        if draw % 17 == 0:
            return _BULLET
        return _OPENER_IDS[pick % len(_OPENER_IDS)]
