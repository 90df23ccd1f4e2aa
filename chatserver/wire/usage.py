"""Usage as clients read it: sums by key, model and day."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

from chatserver.domain.money import shown
from chatserver.domain.response import Response, Usage
from chatserver.errors import BadRequest
from chatserver.ports.accounts import Used
from chatserver.wire.fields import Fields, wrong

DEFAULT_DAYS = 30
MAX_DAYS = 366
GROUPS = ("day", "key", "model")


@dataclass(frozen=True, slots=True)
class AskUsage:
    """Days (UTC, YYYY-MM-DD) from `first` to `last`, both included; sums for each value of `groups`."""

    first: str
    last: str
    groups: tuple[str, ...] = GROUPS


def parse(query: Mapping[str, str], *, today: date) -> AskUsage:
    """Check the query. Raises BadRequest, which names the field."""
    fields = Fields(query)
    last = _day(fields.take("end_date", None), "end_date", today)
    first = _day(fields.take("start_date", None), "start_date", last - timedelta(days=DEFAULT_DAYS - 1))
    groups = parse_groups(fields.take("group_by", None))
    fields.done()
    if not timedelta(0) <= last - first < timedelta(days=MAX_DAYS):
        raise BadRequest(
            f"start_date: expected a day within the {MAX_DAYS} days up to end_date ({last}), got {first}",
            param="start_date",
        )
    return AskUsage(first.isoformat(), last.isoformat(), groups)


def parse_groups(text: str | None) -> tuple[str, ...]:
    """Return what to sum up by: a list of key, model and day, separated by commas. Raises BadRequest."""
    if text is None:
        return GROUPS
    names = text.split(",")
    if not set(names) <= set(GROUPS) or len(set(names)) != len(names):
        raise wrong("group_by", "some of key, model and day, separated by commas", text)
    return tuple(name for name in GROUPS if name in names)


def grouped(rows: Iterable[Used], groups: Sequence[str]) -> list[Used]:
    """Return the rows summed up; fields that are not in `groups` are empty."""
    sums: dict[tuple[str, str, str, str], Used] = {}
    for row in rows:
        kept = {name: getattr(row, name) if name in groups else "" for name in GROUPS}
        place = (kept["day"], kept["key"], kept["model"], row.currency)
        one = replace(row, **kept)
        sums[place] = _added(sums[place], one) if place in sums else one
    return [sums[place] for place in sorted(sums)]


def usage_page(ask: AskUsage, rows: Sequence[Used]) -> dict[str, Any]:
    """Return the answer to GET /v1/usage."""
    return {
        "object": "usage",
        "start_date": ask.first,
        "end_date": ask.last,
        "data": [usage_row(row, ask.groups) for row in grouped(rows, ask.groups)],
        "totals": [usage_row(row, ()) for row in grouped(rows, ())],
    }


def usage_row(row: Used, groups: Sequence[str]) -> dict[str, Any]:
    """Return one sum. Its cost leaves out the answers that had no price: `unpriced_requests`."""
    names = {"day": ("day", row.day), "key": ("key_id", row.key), "model": ("model", row.model)}
    return {
        **dict(names[name] for name in groups),
        "requests": row.answers,
        "unpriced_requests": row.unpriced,
        "input_tokens": row.usage.prompt,
        "input_cached_tokens": row.usage.cached,
        "output_tokens": row.usage.output,
        "cost": {"amount": shown(row.cost), "currency": row.currency} if row.currency else None,
    }


def priced(usage: dict[str, Any], response: Response, used: Usage) -> dict[str, Any]:
    """Return a usage object with the extension `cost`, where the model has a price; the amount is exact decimals."""
    cost = response.cost(used)
    if cost is None or response.price is None:
        return usage
    return usage | {"cost": {"amount": shown(cost), "currency": response.price.currency}}


def _day(text: str | None, path: str, default: date) -> date:
    if text is None:
        return default
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise wrong(path, "a day as in 2026-11-22", text) from None
    if found.isoformat() != text or not 1970 < found.year < 9999:
        raise wrong(path, "a day as in 2026-11-22", text)
    return found


def _added(a: Used, b: Used) -> Used:
    usage = Usage(
        a.usage.prompt + b.usage.prompt, a.usage.cached + b.usage.cached, a.usage.output + b.usage.output
    )
    return replace(
        a, answers=a.answers + b.answers, usage=usage, cost=a.cost + b.cost, unpriced=a.unpriced + b.unpriced
    )
