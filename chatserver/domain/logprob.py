"""Log-probabilities of an answer's tokens, as they are kept on its tape and with its outcome."""

from __future__ import annotations

from dataclasses import dataclass

MOST = 20
"""Likeliest tokens that a request may ask for at each place of its answer."""

LEAST = -9999.0
"""Stands for whatever is less likely, minus infinity included, which JSON cannot carry."""

KEPT = 100_000
"""Log-probabilities, alternatives included, that an answer's whole forms have at most: as stored, 4.9 MB if all of
them are without alternatives, 2.9 MB with 20 each (measured with words of one to six letters)."""


@dataclass(frozen=True, slots=True)
class Logprob:
    """How likely a token was. `value`: natural logarithm of its probability, after temperature, before top-k and top-p.

    `token`: its bytes, a character each (Latin-1), because half a character has no other form in JSON. `likeliest`:
    (token, log-probability) of the likeliest tokens at its place, likeliest first.
    """

    token: str
    value: float
    likeliest: tuple[tuple[str, float], ...] = ()

    @property
    def count(self) -> int:
        """Log-probabilities in it."""
        return 1 + len(self.likeliest)
