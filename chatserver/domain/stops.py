"""Stop strings over a stream of (token, piece) pairs.

Text that may still turn out to be the beginning of a stop string is held back, together with its
tokens: what is released is final, and can be written to a tape that is never rewritten.

    ├── earlier: out already ──┤├── released ──┤├── held back ──┤
                           └ a stop string may begin in any of the last two, or over the seam
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

Pair = tuple[int, str]


@dataclass(slots=True)
class StopFilter:
    """Feed pairs, get released pairs. `matched` is the stop string once one was found; its text is trimmed.

    `earlier`: text before the stream, which cannot be taken back. A stop string that begins there and ends in the
    stream counts: what the stream has of it is trimmed.
    """

    stops: tuple[str, ...]
    earlier: str = ""
    matched: str | None = None
    _held: list[Pair] = field(default_factory=list)

    def feed(self, pairs: Iterable[Pair]) -> list[Pair]:
        """Take new pairs; return those whose text is final.

        What comes behind a match is dropped: how many tokens an engine's step was ahead is no part of an answer,
        and is not billed.
        """
        if not self.stops:
            return list(pairs)
        released: list[Pair] = []
        for pair in pairs:
            if self.matched is not None:
                break
            released.extend(self._step(pair))
        return released

    def flush(self) -> list[Pair]:
        """Return what is held: the stream is over, no stop string can complete."""
        held, self._held = self._held, []
        return held

    def _step(self, pair: Pair) -> list[Pair]:
        self._held.append(pair)
        self.earlier = self.earlier[-max(map(len, self.stops)) :]
        seam, text = len(self.earlier), self.earlier + "".join(piece for _, piece in self._held)
        found = ((text.find(s, max(0, seam - len(s) + 1)), s) for s in self.stops)
        position, stop = min((one for one in found if one[0] >= 0), default=(-1, None))
        if stop is not None:
            self.matched = stop
            return _trim(self.flush(), position - seam)
        released = self._release(len(text) - _overlap(text, self.stops) - seam)
        self.earlier += "".join(piece for _, piece in released)
        return released

    def _release(self, final: int) -> list[Pair]:
        """Release the pairs whose text ends at or before character `final`."""
        end = count = 0
        for _, piece in self._held:
            if end + len(piece) > final:
                break
            end += len(piece)
            count += 1
        released, self._held = self._held[:count], self._held[count:]
        return released


def _overlap(text: str, stops: tuple[str, ...]) -> int:
    """Return the length of the longest end of `text` that begins a stop string."""
    longest = 0
    for stop in stops:
        for length in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:length]):
                longest = length
                break
    return longest


def _trim(pairs: list[Pair], keep: int) -> list[Pair]:
    """Return the pairs with only the first `keep` characters of their text."""
    result = []
    for token, piece in pairs:
        result.append((token, piece[: max(keep, 0)]))
        keep -= len(piece)
    return result
