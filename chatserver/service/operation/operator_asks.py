"""What operators typed, checked: arguments of `chatserver keys` and `chatserver usage`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from chatserver.domain.access import MAX_CONCURRENT, MAX_PER_MINUTE, Limits, Scope, is_tenant
from chatserver.domain.money import amount
from chatserver.errors import BadRequest
from chatserver.wire import usage as wire
from chatserver.wire.fields import digits

MAX_NAME = 64
_UNITS = {"h": 3600, "d": 86400}
_FIELDS = {
    "requests_per_minute": "requests",
    "tokens_per_minute": "tokens",
    "concurrent": "concurrent",
    "monthly_spend": "spend",
}
_FLAGS = {name: "--" + name.replace("_", "-") for name in _FIELDS}


@dataclass(frozen=True, slots=True)
class KeyAsk:
    """A key to be made. `seconds` until it expires, 0: never."""

    tenant: str
    name: str
    scopes: frozenset[Scope]
    limits: Limits
    seconds: int


def key(chosen: dict[str, Any]) -> KeyAsk:
    """Take the arguments of `keys create`. Raises BadRequest, which names the argument."""
    tenant, name = chosen.pop("tenant"), chosen.pop("name")
    if not is_tenant(tenant):
        raise BadRequest(f"--tenant: expected 1 to 64 letters, digits, '_', '.' or '-', got {tenant[:80]!r}")
    if len(name) > MAX_NAME or not name.isprintable():
        raise BadRequest(f"--name: expected at most {MAX_NAME} printable characters, got {name[:80]!r}")
    limits = Limits(**_limits(chosen))
    return KeyAsk(tenant, name, _scopes(chosen.pop("scopes")), limits, _seconds(chosen.pop("expires")))


def changes(chosen: dict[str, Any]) -> dict[str, int | None]:
    """Take the arguments of `keys limit`: the limits that change, None for one that goes. Raises BadRequest."""
    given = {name: text for name, text in chosen.items() if name in _FLAGS and text is not None}
    if not given:
        raise BadRequest(f"expected one of {', '.join(_FLAGS.values())}")
    gone = {name for name, text in given.items() if text.lower() == "none"}
    found = _limits({name: None if name in gone else given.get(name) for name in _FLAGS})
    for name in _FLAGS:
        chosen.pop(name)
    return {_FIELDS[name]: found[_FIELDS[name]] for name in given}


def usage(chosen: dict[str, Any]) -> wire.AskUsage:
    """Take the arguments of `usage`. Raises BadRequest, which names the argument."""
    given = {name: chosen.pop(name) for name in ("start_date", "end_date", "group_by")}
    query = {name: text for name, text in given.items() if text is not None}
    return wire.parse(query, today=datetime.now(UTC).date())


def _limits(chosen: dict[str, Any]) -> dict[str, int | None]:
    return {
        "requests": whole(chosen.pop("requests_per_minute"), "--requests-per-minute", MAX_PER_MINUTE),
        "tokens": whole(chosen.pop("tokens_per_minute"), "--tokens-per-minute", MAX_PER_MINUTE),
        "concurrent": whole(chosen.pop("concurrent"), "--concurrent", MAX_CONCURRENT),
        "spend": _money(chosen.pop("monthly_spend")),
    }


def _scopes(text: str) -> frozenset[Scope]:
    try:
        return frozenset(Scope(name.strip()) for name in text.split(","))
    except ValueError:
        raise BadRequest(f"--scopes: expected some of {', '.join(Scope)}, got {text[:80]!r}") from None


def whole(text: str | None, flag: str, most: int) -> int | None:
    """Read a whole number from 1 to `most`. Raises BadRequest, which names the argument."""
    if text is None:
        return None
    number = digits(text, 1, most)
    if number is None:
        raise BadRequest(f"{flag}: expected a whole number from 1 to {most}, got {text[:80]!r}")
    return number


def _money(text: str | None) -> int | None:
    try:
        return None if text is None else amount(text)
    except ValueError as error:
        raise BadRequest(f"--monthly-spend: {error}, got {text!r:.80}") from None


def _seconds(text: str | None) -> int:
    if text is None:
        return 0
    match = re.fullmatch(r"([1-9]\d{0,4})([hd])", text)
    if match is None:
        raise BadRequest(f"--expires: expected a time as in 90d or 12h, got {text[:80]!r}")
    return int(match[1]) * _UNITS[match[2]]
