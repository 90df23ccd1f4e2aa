"""Stop strings over a stream of (token, piece) pairs.

Text that may still turn out to be the beginning of a stop string is held back, together with its
tokens: what is released is final, and can be written to a tape that is never rewritten.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

Pair = tuple[int, str]


@dataclass(slots=True)
class StopFilter:
    """Feed pairs, get released pairs. `matched` is the stop string once one was found; its text is trimmed."""

    stops: tuple[str, ...]
    matched: str | None = None
    _held: list[Pair] = field(default_factory=list)

    def feed(self, pairs: Iterable[Pair]) -> list[Pair]:
        """Take new pairs; return those whose text is final. After a match only empty pieces are released."""
        if not self.stops:
            return list(pairs)
        released: list[Pair] = []
        for pair in pairs:
            released.extend(self._step(pair))
        return released

    def flush(self) -> list[Pair]:
        """Return what is held: the stream is over, no stop string can complete."""
        held, self._held = self._held, []
        return held

    def _step(self, pair: Pair) -> list[Pair]:
        if self.matched is not None:
            return [(pair[0], "")]
        self._held.append(pair)
        text = "".join(piece for _, piece in self._held)
        position, stop = min(((text.find(s), s) for s in self.stops if s in text), default=(-1, None))
        if stop is not None:
            self.matched = stop
            return _trim(self.flush(), position)
        return self._release(len(text) - _overlap(text, self.stops))

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
