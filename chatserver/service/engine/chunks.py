"""How much of a prefix one request makes: at first little, then what takes CHUNK_SECONDS at the speed that was seen."""

from __future__ import annotations

CHUNK_SECONDS = 0.15
"""How long one prefill request should take: what a turn that comes in its middle may lose."""
MIN_CHUNK, MAX_CHUNK = 64, 1024
"""Tokens of one prefill request; the first one has MIN_CHUNK, then the measured speed decides."""


class Chunks:
    """Sizes of requests, in whole pages of `page` tokens."""

    def __init__(self, page: int) -> None:
        self._page = page
        self._size = self._pages(MIN_CHUNK)
        self.took = 0.0
        """Seconds that the last request took."""
        self.speed = MIN_CHUNK / CHUNK_SECONDS
        """Tokens a second that the last request made that says anything of it."""

    def end(self, at: int, length: int, *, careful: bool) -> int:
        """Return where the request ends that begins at token `at` of `length`; `careful`: as soon as is sensible.

        A few tokens more are cheaper than one more request.
        """
        end = at + (self._pages(MIN_CHUNK) if careful else self._size)
        return length if end + MIN_CHUNK // 2 >= length else end

    def note(self, computed: int, seconds: float) -> None:
        """A request took `seconds` for so many tokens: choose the next one's size; at most double it."""
        self.took = seconds
        if computed >= MIN_CHUNK // 2:
            self.speed = computed / max(seconds, 1e-4)
            fitting = int(self.speed * CHUNK_SECONDS)
            self._size = self._pages(max(MIN_CHUNK, min(MAX_CHUNK, 2 * self._size, fitting)))

    def _pages(self, tokens: int) -> int:
        return max(self._page, tokens - tokens % self._page)
