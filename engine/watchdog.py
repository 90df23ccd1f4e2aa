"""Notices who has been silent for too long. Pure bookkeeping: times come from the caller, nothing is ended here."""

from __future__ import annotations

from dataclasses import dataclass, field

PATIENCE = 4
"""How many times `silence` schedulers that compute may say nothing: longer, and they go round in circles."""


@dataclass(slots=True)
class Wait:
    """A request's patience in seconds, and since when somebody waits for its next token; None: nobody does now."""

    patience: float
    since: float | None = None


@dataclass(slots=True)
class Watchdog:
    """All requests' waits, and when the schedulers were last heard and last seen to compute. `silence` in seconds."""

    silence: float
    heard_at: float
    worked_at: float = float("-inf")
    waits: dict[str, Wait] = field(default_factory=dict)
    _last_word: object = None

    def heard(self, word: object, now: float) -> None:
        """Note what identifies the schedulers' last message; another one than before is a sign of life."""
        if word != self._last_word:
            self._last_word, self.heard_at = word, now

    def away(self, seconds: float) -> None:
        """Note that this process itself was held up for so long: nobody can have been heard, nobody was late."""
        self.heard_at += seconds
        for wait in self.waits.values():
            if wait.since is not None:
                wait.since += seconds

    def silent(self, now: float) -> float | None:
        """Return for how many seconds the schedulers have said nothing, if that is too long.

        Schedulers that compute get PATIENCE times as long: on a machine that is overrun a restart would make it worse.
        """
        passed = now - self.heard_at
        computing = now - self.worked_at <= self.silence and passed <= PATIENCE * self.silence
        return passed if passed > self.silence and not computing else None

    def stalled(self, now: float) -> list[str]:
        """Return the requests that have been without a token for too long."""
        return [
            request_id
            for request_id, wait in self.waits.items()
            if wait.since is not None and now - wait.since > wait.patience
        ]
