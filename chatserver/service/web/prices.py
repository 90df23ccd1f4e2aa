"""The table of prices: what models cost per million tokens, from a TOML file.

    currency = "USD"

    [models.my-model]
    hit = 0.07        # prompt tokens that came from the KV cache
    miss = 0.27       # prompt tokens that were computed
    output = 1.10     # tokens of the answer, reasoning included

A model is found by its name or one of its aliases, in any case. Numbers are read as decimals, never as floats.
"""

from __future__ import annotations

import re
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

from chatserver.domain.money import MILLION, Price, amount
from chatserver.errors import StartupError
from chatserver.ports.registry import ServedModel

MAX_PRICE = 10_000
"""Bound on the price of a million tokens."""
_KINDS = ("hit", "miss", "output")


class Prices:
    """Prices by model; none by default."""

    def __init__(self, table: dict[str, Price] | None = None) -> None:
        self._table = {name.casefold(): price for name, price in (table or {}).items()}

    @classmethod
    def read(cls, path: Path | None) -> Prices:
        """Return the table of a file, an empty one for None. Raises StartupError, which names file and field."""
        if path is None:
            return cls()
        try:
            with path.open("rb") as file:
                found = tomllib.load(file, parse_float=Decimal)
        except OSError as error:
            raise StartupError(
                f"CHATSERVER_PRICES: cannot read {path}: {error.strerror}", exit_code=2
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise StartupError(f"CHATSERVER_PRICES: {path} is not TOML: {error}", exit_code=2) from None
        return cls(_table(found, path))

    def of(self, model: ServedModel) -> Price | None:
        """Return a model's price, or None."""
        for name in (model.name, *model.aliases):
            price = self._table.get(name.casefold())
            if price is not None:
                return price
        return None

    def __bool__(self) -> bool:
        return bool(self._table)


def _table(found: dict[str, Any], path: Path) -> dict[str, Price]:
    currency = found.pop("currency", "USD")
    if not isinstance(currency, str) or not re.fullmatch(r"[A-Z]{3}", currency):
        raise _wrong(path, "currency", "three capital letters, as in USD", currency)
    models = found.pop("models", {})
    if found:
        raise _wrong(path, next(iter(found)), "nothing but currency and models", "it")
    if not isinstance(models, dict):
        raise _wrong(path, "models", "tables, as in [models.my-model]", models)
    return {name: _price(entry, f"models.{name}", currency, path) for name, entry in models.items()}


def _price(entry: object, place: str, currency: str, path: Path) -> Price:
    if not isinstance(entry, dict) or set(entry) != set(_KINDS):
        raise _wrong(path, place, "exactly hit, miss and output", entry)
    found = {}
    for kind in _KINDS:
        value = entry[kind]
        expected = f"a number from 0 to {MAX_PRICE} with at most {MILLION} decimal places"
        if not _is_price(value):
            raise _wrong(path, f"{place}.{kind}", expected, value)
        try:
            # a millionth of the price of a million tokens, in picos: the same digits, six places further
            found[kind] = amount(value, places=MILLION)
        except ValueError:
            raise _wrong(path, f"{place}.{kind}", expected, value) from None
    return Price(found["hit"], found["miss"], found["output"], currency)


def _is_price(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return False
    return Decimal(value).is_finite() and 0 <= value <= MAX_PRICE


def _wrong(path: Path, place: str, expected: str, got: object) -> StartupError:
    return StartupError(f"CHATSERVER_PRICES: {path}: {place}: expected {expected}, got {got}", exit_code=2)
