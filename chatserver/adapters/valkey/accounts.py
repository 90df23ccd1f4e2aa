"""Limits and accounts of API keys (port `Accounts`).

A bill lies in the shard of its response, because it is written by the step that ends it; the account lies in
the shard of its tenant. Between the two, settling is made once by a mark, which outlives the bill for longer than
anybody who has read it may still settle it: see `settle.lua`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime

from chatserver.adapters.valkey import bills, keys
from chatserver.adapters.valkey.bills import Bill
from chatserver.adapters.valkey.client import Client
from chatserver.adapters.valkey.connect import Reply
from chatserver.adapters.valkey.scripts import Command, script
from chatserver.domain.access import MAX_CONCURRENT, key_shard
from chatserver.domain.ids import SHARDS, shard_for, shard_of
from chatserver.domain.response import Usage
from chatserver.ports.accounts import (
    HOLD,
    USAGE_MONTHS,
    Hold,
    Rate,
    State,
    Used,
    Verdict,
)

STEP = 200
"""Bills of one shard that one call settles, and overdue holds that one call looks at."""
KEEP = USAGE_MONTHS * 31 * 86400
"""Seconds for which usage and spending are kept."""
MARK = 7 * 86400
"""Seconds for which a bill that is still there is known to be settled: until the store can be reached again."""
SETTLE_WITHIN = 30
"""Seconds after a bill was read in which it can be settled, by the store's clock; after that it must be read again."""
MARK_AFTER = 2 * SETTLE_WITHIN
"""Seconds for which that is known when the bill is gone, for whoever read it before; the servers of a cluster may
differ by half of them. There is a mark for each answer of that time, so it is short."""
_COST = "cost:"
"""Prefix of the sums of money; the currency follows."""
_NOTHING = ("", "", "", "0", "0", "0")


class ValkeyAccounts:
    """One script admits, one settles."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def admit(self, key_id: str, *, request: bool, hold: Hold | None = None) -> Verdict:
        """See `Accounts.admit`."""
        shard = key_shard(key_id)
        if shard is None:
            return Verdict(State.UNKNOWN)
        place = keys.payer(key_id, shard)
        names = (place.fields, place.buckets, place.held, place.holds)
        wanted = ("", 0, "", "") if hold is None else _wanted(key_id, hold)
        month = "" if hold is None else hold.month
        command = script("admit").command(
            (*names, place.spent + month), int(request), *wanted, int(HOLD * 1000), KEEP
        )
        state, wait, *rates = await self._client.run(shard, command)
        retry = None if wait < 0 else wait
        return Verdict(State(state.decode()), _rate(rates[:3]), _rate(rates[3:]), retry)

    async def release(self, key_id: str, hold: Hold) -> None:
        """See `Accounts.release`."""
        shard = key_shard(key_id)
        if shard is not None:
            await self._client.run(shard, _release(key_id, shard, hold.response_id, hold.month))

    async def settle(self, key_id: str | None = None) -> int:
        """See `Accounts.settle`."""
        now = await self._now()
        written = await (self._all_bills() if key_id is None else self._bills_of(key_id))
        return await self._settle(written, now)

    async def review(self, *, early: float = 0.0) -> int:
        """See `Accounts.review`."""
        now = await self._now()
        late = int((now + early) * 1000)
        asked = [
            (s, ("ZRANGEBYSCORE", keys.payer("", s).holds, "-inf", late, "LIMIT", 0, STEP))
            for s in range(SHARDS)
        ]
        replies = await self._client.pipeline(asked)
        overdue = [(shard, member) for shard, members in enumerate(replies) for member in members]
        return await self._look_at(overdue, now, late + int(HOLD * 1000)) if overdue else 0

    async def used(self, tenant: str, first: str, last: str) -> list[Used]:
        """See `Accounts.used`; in order of day, key, model."""
        shard = shard_for(tenant)
        members = await self._client.run(shard, ("SMEMBERS", keys.payers(shard, tenant)))
        wanted = [(name.decode(), month) for name in sorted(members) for month in _months(first, last)]
        replies = await self._client.pipeline(
            [(shard, ("HGETALL", keys.payer(name, shard).usage + month)) for name, month in wanted]
        )
        rows = [row for (name, _), flat in zip(wanted, replies, strict=True) for row in _rows(name, flat)]
        return sorted(
            (row for row in rows if first <= row.day <= last), key=lambda row: (row.day, row.key, row.model)
        )

    async def tenants(self) -> list[str]:
        """See `Accounts.tenants`; in order."""
        replies = await self._client.pipeline([(s, ("SMEMBERS", keys.tenants(s))) for s in range(SHARDS)])
        return sorted(name.decode() for reply in replies for name in reply)

    async def spent(self, tenant: str, key_ids: list[str], month: str) -> list[int]:
        """See `Accounts.spent`."""
        shard = shard_for(tenant)
        replies = await self._client.pipeline(
            [(shard, ("GET", keys.payer(name, shard).spent + month)) for name in key_ids]
        )
        return [int(reply or 0) for reply in replies]

    async def _now(self) -> int:
        seconds, _ = await self._client.run(keys.REGISTRY_SHARD, ("TIME",))
        return int(seconds)

    async def _all_bills(self) -> list[tuple[str, bytes]]:
        asked: list[tuple[int, Command]] = [
            (s, ("HRANDFIELD", keys.due(s), STEP, "WITHVALUES")) for s in range(SHARDS)
        ]
        return [pair for flat in await self._client.pipeline(asked) for pair in _pairs(flat)]

    async def _bills_of(self, key_id: str) -> list[tuple[str, bytes]]:
        shard = key_shard(key_id)
        if shard is None:
            return []
        held = await self._client.run(shard, ("HRANDFIELD", keys.payer(key_id, shard).held, MAX_CONCURRENT))
        names = [name.decode() for name in held]
        replies = await self._client.pipeline([_bill(name) for name in names])
        return [(name, bill) for name, bill in zip(names, replies, strict=True) if bill]

    async def _settle(self, written: Sequence[tuple[str, bytes]], read_at: int) -> int:
        """Count, then tear up the bills: cut off in between, they are found settled the next time."""
        if not written:
            return 0
        until = read_at + SETTLE_WITHIN
        read = [(name, *bills.decode(bill)) for name, bill in written]
        done = await self._client.pipeline([_settled(*one, until=until) for one in read])
        torn: dict[int, list[str]] = defaultdict(list)
        marks: list[tuple[int, Command]] = []
        for (name, payer, _), result in zip(read, done, strict=True):
            if result < 0:
                continue
            own, shard = shard_of(name) or 0, shard_for(payer.tenant)
            torn[own].append(name)
            marks.append((shard, ("EXPIRE", keys.settled(shard, name), MARK_AFTER)))
        await self._client.pipeline([(own, ("HDEL", keys.due(own), *names)) for own, names in torn.items()])
        await self._client.pipeline(marks)
        return len(marks)

    async def _look_at(self, overdue: Sequence[tuple[int, bytes]], now: int, again_at: int) -> int:
        """Settle, keep or release each overdue hold: (shard of the key, «key response»)."""
        pairs = [(shard, member, *member.decode().split(" ")) for shard, member in overdue]
        asked: list[tuple[int, Command]] = []
        for _, _, _, name, _ in pairs:
            own = keys.response(name)
            asked += [_bill(name), (own.shard, ("HMGET", own.fields, "status", "created_at"))]
        replies = await self._client.pipeline(asked)
        written, steps = [], []
        for i, (shard, member, key_id, name, month) in enumerate(pairs):
            bill, (status, _) = replies[2 * i], replies[2 * i + 1]
            if bill:
                written.append((name, bill))
            elif status in (b"queued", b"in_progress"):
                steps.append((shard, ("ZADD", keys.payer("", shard).holds, "XX", again_at, member)))
            else:
                steps.append((shard, _release(key_id, shard, name, month)))
        await self._client.pipeline(steps)
        return await self._settle(written, now) + sum(step[1][0] == "EVALSHA" for step in steps)


def _bill(response_id: str) -> tuple[int, Command]:
    shard = keys.response(response_id).shard
    return shard, ("HGET", keys.due(shard), response_id)


def _wanted(key_id: str, hold: Hold) -> tuple[str, int, str | int, str]:
    cost = "" if hold.cost is None else hold.cost
    return hold.response_id, hold.tokens, cost, _member(key_id, hold.response_id, hold.month)


def _settled(response_id: str, payer: Bill, usage: Usage, *, until: int) -> tuple[int, Command]:
    shard, day = shard_for(payer.tenant), datetime.fromtimestamp(payer.created_at, UTC)
    place, month = keys.payer(payer.key, shard), day.strftime("%Y-%m")
    names = [place.fields, place.buckets, place.held, place.holds, place.spent + month, place.usage + month]
    names += [keys.payers(shard, payer.tenant), keys.tenants(shard), keys.settled(shard, response_id)]
    cost = payer.cost(usage)
    return shard, script("settle").command(
        names,
        *(response_id, _member(payer.key, response_id, month), usage.prompt + usage.output, cost, payer.key),
        *(day.strftime("%Y-%m-%d"), payer.model, usage.prompt, usage.cached, usage.output),
        *(KEEP, MARK, payer.tenant, payer.price.currency if payer.price else "", until),
    )


def _release(key_id: str, shard: int, response_id: str, month: str) -> Command:
    place = keys.payer(key_id, shard)
    names = (place.fields, place.buckets, place.held, place.holds, place.spent + month, *[place.held] * 4)
    return script("settle").command(
        names, response_id, _member(key_id, response_id, month), 0, "0", *_NOTHING, KEEP, MARK, ""
    )


def _member(key_id: str, response_id: str, month: str) -> str:
    """Return a hold among those of its shard; the month says what to give back to if nothing else is left."""
    return f"{key_id} {response_id} {month}"


def _rate(reply: Sequence[Reply]) -> Rate | None:
    limit, remaining, reset = reply
    return None if limit == b"" else Rate(limit, remaining, reset)


def _months(first: str, last: str) -> Iterable[str]:
    at, end = date.fromisoformat(first).replace(day=1), date.fromisoformat(last)
    while at <= end:
        yield at.strftime("%Y-%m")
        at = date(at.year + at.month // 12, at.month % 12 + 1, 1)


def _pairs(flat: Sequence[Reply]) -> list[tuple[str, bytes]]:
    if flat and isinstance(flat[0], list):  # RESP3 pairs them
        return [(name.decode(), value) for name, value in flat]
    return [(name.decode(), value) for name, value in zip(flat[::2], flat[1::2], strict=True)]


def _rows(key_id: str, flat: Sequence[bytes]) -> Iterable[Used]:
    sums: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for name, value in zip(flat[::2], flat[1::2], strict=True):
        day, what, model = name.decode().split("|", 2)
        sums[day, model][what] = int(value)
    for (day, model), of in sums.items():
        usage = Usage(of["prompt"], of["cached"], of["output"])
        # one currency, but for a day on which the table of prices was changed to another
        first, *others = sorted(what for what in of if what.startswith(_COST)) or [_COST]
        yield Used(
            key_id, model, day, of["answers"], usage, of[first], of["unpriced"], first.removeprefix(_COST)
        )
        for what in others:
            yield Used(key_id, model, day, 0, Usage(), of[what], 0, what.removeprefix(_COST))
