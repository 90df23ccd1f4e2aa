"""What one engine process has done since it started: answers, tokens, times to the first token. Told in its report."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

from chatserver.domain.response import Outcome
from chatserver.ports.registry import TTFT_BOUNDS, Work


class Tally:
    """Counts outcomes. An answer that another engine began and this one ended counts here, with all of its tokens."""

    def __init__(self) -> None:
        self._answers: Counter[str] = Counter()
        self._prompt = self._cached = self._output = 0
        self._ttft = [0] * (len(TTFT_BOUNDS) + 1)
        self._ttft_seconds = 0.0

    def note(self, outcome: Outcome) -> None:
        """Count an answer that has ended, and was kept."""
        usage, ttft = outcome.usage, outcome.timing.ttft_ms / 1000
        self._answers[outcome.status.value] += 1
        self._prompt += usage.prompt
        self._cached += usage.cached
        self._output += usage.output
        if ttft:
            self._ttft[bisect_left(TTFT_BOUNDS, ttft)] += 1
            self._ttft_seconds += ttft

    @property
    def work(self) -> Work:
        """All of it so far."""
        counted = (dict(self._answers), self._prompt, self._cached, self._output)
        return Work(*counted, tuple(self._ttft), self._ttft_seconds)
