"""Money in whole numbers: no amount is ever a float.

An amount counts picos: 10⁻¹² of the currency. A price of 0.07 per million tokens is 70,000 picos a token, so the
cost of an answer is a sum of products of whole numbers, and its decimal form is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

PICOS = 12
"""Decimal places of an amount."""
MILLION = 6
"""Decimal places between a price of a million tokens and one of a token."""
MAX_AMOUNT = 2**62
"""Bound on amounts, in picos: about 4.6 million. The store adds in 64 bits."""


@dataclass(frozen=True, slots=True)
class Price:
    """Picos a token: prompt tokens from the KV cache (`hit`), computed ones (`miss`), and the answer's (`output`)."""

    hit: int
    miss: int
    output: int
    currency: str = "USD"

    def cost(self, *, prompt: int, cached: int, output: int) -> int:
        """Return what so many tokens cost, in picos; `cached` are those of the prompt that were hits."""
        return cached * self.hit + (prompt - cached) * self.miss + output * self.output


def amount(text: str | Decimal | int, *, places: int = PICOS) -> int:
    """Return a decimal number in units of 10^-places. Raises ValueError: no number, negative, too fine, too large."""
    try:
        units = Decimal(text).scaleb(places)
    except InvalidOperation:
        raise ValueError("expected a decimal number") from None
    if not units.is_finite() or not 0 <= units <= MAX_AMOUNT:
        raise ValueError("expected a number from 0 to 4 million")
    if units != units.to_integral_value():
        raise ValueError(f"expected at most {places} decimal places")
    return int(units)


def shown(picos: int) -> str:
    """Return an amount as an exact decimal number, with at least two places."""
    whole, rest = divmod(abs(picos), 10**PICOS)
    digits = f"{rest:0{PICOS}d}".rstrip("0").ljust(2, "0")
    return f"{'-' if picos < 0 else ''}{whole}.{digits}"
