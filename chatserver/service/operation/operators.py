"""`chatserver keys` and `chatserver usage`: what operators do with keys, and what keys used."""

from __future__ import annotations

import getpass
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from chatserver.domain.access import ALL_SCOPES, ID_BYTES, SECRET_BYTES, ApiKey, Limits, new_token
from chatserver.domain.money import shown
from chatserver.ports.access import MAX_LOG, Access, Deed
from chatserver.ports.accounts import Accounts, Used
from chatserver.service.operation import operator_asks as asks
from chatserver.service.web.admission import month_of
from chatserver.wire import usage as wire

Work = Callable[[Access, Accounts], Awaitable[str]]

UNPRICED = (
    "--monthly-spend: no prices are set here (CHATSERVER_PRICES); a server without them cannot count what is spent, "
    "and refuses this key's answers until it has them"
)
"""What an operator is warned of; a server elsewhere may have prices all the same."""


def limits_spending(chosen: dict[str, Any]) -> bool:
    """Whether a command's arguments give a key a limit of money."""
    return (chosen.get("monthly_spend") or "none").lower() != "none"


def work(command: str, chosen: dict[str, Any]) -> Work:
    """Take a command's arguments out of `chosen`; return what does it. Raises BadRequest, which names the argument."""
    as_json = chosen.pop("json")
    if command == "usage":
        return _Usage(chosen.pop("tenant"), asks.usage(chosen), as_json)
    action = chosen.pop("action")
    if action == "create":
        return _Create(asks.key(chosen), as_json)
    if action == "limit":
        return _Limit(chosen.pop("key_id"), asks.changes(chosen), as_json)
    if action == "revoke":
        return _Revoke(chosen.pop("key_id"), as_json)
    if action == "log":
        return _Log(asks.whole(chosen.pop("limit"), "--limit", MAX_LOG) or MAX_LOG, as_json)
    return _List(as_json)


@dataclass(frozen=True, slots=True)
class _Create:
    ask: asks.KeyAsk
    as_json: bool

    async def __call__(self, access: Access, accounts: Accounts) -> str:
        ask, now = self.ask, time.time()
        key_id, token, kept = new_token(
            ask.tenant, secrets.token_bytes(ID_BYTES), secrets.token_bytes(SECRET_BYTES)
        )
        expires = int(now) + ask.seconds if ask.seconds else 0
        key = ApiKey(key_id, ask.tenant, kept, ask.name, ask.scopes, ask.limits, int(now), expires)
        await access.create(key, _deed("create", key, now, _limits(key)))
        if self.as_json:
            return _json({**_key_object(key), "key": token})
        return (
            f"{token}\n\nThis is key {key.id} of tenant {key.tenant}: {_limits(key)}.\n"
            "It is shown this once; only a hash of it is kept. From now on every request needs a key."
        )


@dataclass(frozen=True, slots=True)
class _Limit:
    key_id: str
    changes: dict[str, int | None]
    as_json: bool

    async def __call__(self, access: Access, accounts: Accounts) -> str:
        known = await access.get(self.key_id)
        limits = replace(known.limits if known else Limits(), **self.changes)
        owner = replace(known or ApiKey(self.key_id, "", ""), limits=limits)
        key = await access.limit(self.key_id, limits, _deed("limit", owner, time.time(), _limits(owner)))
        return (
            _json(_key_object(key)) if self.as_json else f"{key.id} of tenant {key.tenant}: {_limits(key)}."
        )


@dataclass(frozen=True, slots=True)
class _Revoke:
    key_id: str
    as_json: bool

    async def __call__(self, access: Access, accounts: Accounts) -> str:
        known = await access.get(self.key_id)
        owner = known or ApiKey(self.key_id, "", "")
        key = await access.revoke(self.key_id, _deed("revoke", owner, time.time(), ""))
        return _json(_key_object(key)) if self.as_json else f"{key.id} of tenant {key.tenant} is revoked."


@dataclass(frozen=True, slots=True)
class _List:
    as_json: bool

    async def __call__(self, access: Access, accounts: Accounts) -> str:
        keys = await access.all()
        month = month_of(time.time())
        spent = {key.id: (await accounts.spent(key.tenant, [key.id], month))[0] for key in keys}
        if self.as_json:
            return _json([{**_key_object(key), "spent": shown(spent[key.id])} for key in keys])
        rows = [
            (k.id, k.tenant, k.name, _state(k), _limits(k), shown(spent[k.id]), " ".join(sorted(k.scopes)))
            for k in keys
        ]
        return _table(("id", "tenant", "name", "state", "limits", f"spent {month}", "scopes"), rows)


@dataclass(frozen=True, slots=True)
class _Log:
    limit: int
    as_json: bool

    async def __call__(self, access: Access, accounts: Accounts) -> str:
        deeds = await access.log(self.limit)
        if self.as_json:
            return orjson.dumps(deeds).decode()
        rows = [(_time(d.at), d.actor, d.what, d.key, d.tenant, d.detail) for d in deeds]
        return _table(("time (UTC)", "who", "what", "key", "tenant", "detail"), rows)


@dataclass(frozen=True, slots=True)
class _Usage:
    tenant: str | None
    ask: wire.AskUsage
    as_json: bool

    async def __call__(self, access: Access, accounts: Accounts) -> str:
        while await accounts.settle():
            pass
        found = {}
        for tenant in [self.tenant] if self.tenant else await accounts.tenants():
            found[tenant] = wire.grouped(
                await accounts.used(tenant, self.ask.first, self.ask.last), self.ask.groups
            )
        if self.as_json:
            return _json(
                [
                    {"tenant": tenant, **wire.usage_row(row, self.ask.groups)}
                    for tenant, rows in found.items()
                    for row in rows
                ]
            )
        groups = self.ask.groups
        rows = [
            (
                *(tenant, *(getattr(row, name) for name in groups), row.answers, row.usage.prompt),
                *(row.usage.cached, row.usage.output, _cost(row)),
            )
            for tenant, of_tenant in found.items()
            for row in of_tenant
        ]
        return _table(("tenant", *groups, "answers", "prompt", "cached", "output", "cost"), rows)


def _cost(row: Used) -> str:
    """Return what it cost, and of how many answers that is not known: without a price they were not free."""
    known = f"{shown(row.cost)} {row.currency}"
    if not row.unpriced:
        return known.strip()
    return f"{known} + {row.unpriced} without a price" if row.currency else "no price"


def _deed(what: str, key: ApiKey, now: float, detail: str) -> Deed:
    try:
        actor = getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        actor = "unknown"
    return Deed(now, actor, what, key.id, key.tenant, detail)


def _state(key: ApiKey) -> str:
    if key.revoked_at:
        return f"revoked {_time(key.revoked_at)}"
    if key.expires_at:
        return f"{'expired' if key.expires_at <= time.time() else 'until'} {_time(key.expires_at)}"
    return "valid"


def _limits(key: ApiKey) -> str:
    limits = key.limits
    words = (
        (limits.requests, f"{limits.requests} requests/min"),
        (limits.tokens, f"{limits.tokens} tokens/min"),
        (limits.concurrent, f"{limits.concurrent} at once"),
        (limits.spend, f"{shown(limits.spend or 0)} a month"),
    )
    told = ", ".join(text for value, text in words if value is not None) or "no limits"
    return told if key.scopes == ALL_SCOPES else f"{told}; may {', '.join(sorted(key.scopes))}"


def _key_object(key: ApiKey) -> dict[str, Any]:
    """Return a key for programs: without its digest."""
    limits = key.limits
    return {
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "requests_per_minute": limits.requests,
        "tokens_per_minute": limits.tokens,
        "concurrent": limits.concurrent,
        "monthly_spend": None if limits.spend is None else shown(limits.spend),
        "created_at": key.created_at,
        "expires_at": key.expires_at or None,
        "revoked_at": key.revoked_at or None,
    }


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")


def _json(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells
    )
