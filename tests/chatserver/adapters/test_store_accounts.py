"""Keys, limits and accounts: one step for all limits, bills that are counted once, holds that do not leak."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace

import pytest

from chatserver.adapters.valkey import accounts, keys
from chatserver.adapters.valkey.scripts import title
from chatserver.domain.access import ApiKey, Limits, Scope, digest, key_shard, matches, new_token, parse_token
from chatserver.domain.money import MAX_AMOUNT, Price
from chatserver.domain.response import Usage
from chatserver.errors import Conflict, NotFound
from chatserver.ports import access as access_port
from chatserver.ports.access import Deed
from chatserver.ports.accounts import Hold, State
from tests.chatserver.adapters.things import (
    BOUND,
    NOW,
    answer_it,
    begin,
    claim,
    closing,
    first_turn,
    name,
    outcome_of,
    turn,
)

MONTH, DAY = "2023-11", "2023-11-14"
PRICE = Price(hit=70_000, miss=270_000, output=1_100_000)
DEED = Deed(NOW, "root", "create", "", "acme")


def key_of(tenant: str = "acme", **limits) -> ApiKey:
    key_id, _, kept = new_token(tenant, os.urandom(7), os.urandom(32))
    return ApiKey(key_id, tenant, kept, limits=Limits(**limits), created_at=NOW)


async def stored(store, **limits) -> ApiKey:
    key = key_of(**limits)
    await store.access.create(key, replace(DEED, key=key.id))
    return key


def hold(tokens: int = 10, cost: int | None = None, response_id: str = "") -> Hold:
    return Hold(response_id or name("resp"), tokens, cost, MONTH)


def paid_turn(key: ApiKey, *, make=first_turn, **options):
    new = make(**options)
    return replace(new, response=replace(new.response, payer=key.id, tenant=key.tenant, price=PRICE))


async def test_a_key_comes_back_as_it_was(store):
    """Scopes, limits and times survive; the digest is not the secret."""
    key = replace(
        key_of(requests=5, tokens=600, concurrent=2, spend=MAX_AMOUNT),
        name="ci",
        scopes=frozenset({Scope.READ}),
        expires_at=NOW + 1,
    )
    assert not await store.access.any()
    await store.access.create(key, replace(DEED, key=key.id, detail="name ci"))
    assert await store.access.get(key.id) == key and await store.access.all() == [key]
    assert await store.access.any()
    assert await store.access.get("key_" + "0" * 16) is None and await store.access.get("nonsense") is None
    with pytest.raises(Conflict):
        await store.access.create(key, DEED)


def test_a_token_says_where_its_key_lies():
    """The id is in the key, the shard in the id; the secret only matches itself."""
    key_id, token, kept = new_token("acme", b"1234567", b"s" * 32)
    parsed = parse_token(token)
    assert parsed is not None and parsed[0] == key_id and kept == digest(*parsed)
    key = ApiKey(key_id, "acme", kept)
    assert matches(key, parsed[1]) and not matches(key, parsed[1][:-1] + "A") and not matches(key, "")
    assert kept not in token and parsed[1] not in kept
    for wrong in ("", "sk-", token[:-1], token + "x", "sk-abc-" + parsed[1], token.replace("sk-", "pk-")):
        assert parse_token(wrong) is None
    assert key_shard("key_ff00000000000000") is None and key_shard("key_0") is None


async def test_deeds_are_logged_newest_first_and_bounded(store, monkeypatch):
    monkeypatch.setattr("chatserver.adapters.valkey.access.MAX_LOG", 3)
    made = [await stored(store) for _ in range(3)]
    await store.access.revoke(made[0].id, Deed(NOW + 5, "ops", "revoke", made[0].id, "acme"))
    await store.access.revoke(made[0].id, Deed(NOW + 9, "ops", "revoke", made[0].id, "acme"))
    log = await store.access.log(10)
    assert [(d.what, d.actor, d.key) for d in log] == [
        ("revoke", "ops", made[0].id),
        ("create", "root", made[2].id),
        ("create", "root", made[1].id),
    ]
    assert (await store.access.get(made[0].id)).revoked_at == NOW + 5
    with pytest.raises(NotFound):
        await store.access.revoke("key_" + "0" * 16, DEED)
    monkeypatch.setattr("chatserver.adapters.valkey.access.MAX_KEYS", 3)
    with pytest.raises(Conflict):
        await stored(store)
    assert access_port.MAX_KEYS == 10_000


async def test_revoked_expired_and_unknown_keys_stay_out(store):
    key = await stored(store)
    assert (await store.accounts.admit(key.id, request=True)).state is State.OK
    await store.access.revoke(key.id, DEED)
    assert (await store.accounts.admit(key.id, request=True)).state is State.REVOKED
    old = replace(key_of(), expires_at=NOW)
    await store.access.create(old, DEED)
    assert (await store.accounts.admit(old.id, request=True)).state is State.EXPIRED
    assert (await store.accounts.admit(key_of().id, request=True)).state is State.UNKNOWN
    assert (await store.accounts.admit("local", request=True)).state is State.UNKNOWN


async def test_requests_a_minute(store):
    """The bucket is full at first, empties, and says when it has one again."""
    key = await stored(store, requests=3)
    began = time.monotonic()
    verdicts = [await store.accounts.admit(key.id, request=True) for _ in range(4)]
    took = 1000 * (time.monotonic() - began)
    assert [v.state for v in verdicts] == [State.OK] * 3 + [State.REQUESTS]
    assert [v.requests.remaining for v in verdicts] == [2, 1, 0, 0]
    assert 0 < verdicts[0].requests.reset_ms <= 20_000 < verdicts[2].requests.reset_ms <= 60_000
    assert 19_990 - took < verdicts[3].retry_ms <= 20_000 and verdicts[3].tokens is None


async def test_a_bucket_fills_with_time(store):
    key = await stored(store, requests=6000)  # a hundred a second
    for _ in range(6000 // 1000):
        await asyncio.gather(*(store.accounts.admit(key.id, request=True) for _ in range(1000)))
    began = time.monotonic()
    before = (await store.accounts.admit(key.id, request=True)).requests.remaining
    await asyncio.sleep(0.2)
    after = (await store.accounts.admit(key.id, request=True)).requests.remaining
    assert 15 <= after - before <= 100 * (time.monotonic() - began) + 2


async def test_exactly_the_limit_whoever_asks(store):
    """A hundred at once, ten are let in: one atomic step, not read and write."""
    key = await stored(store, requests=10)
    verdicts = await asyncio.gather(*(store.accounts.admit(key.id, request=True) for _ in range(100)))
    assert sum(v.state is State.OK for v in verdicts) == 10


async def test_tokens_are_reserved_and_settled(store):
    """The estimate is taken at once; at the end what was used takes its place."""
    key = await stored(store, tokens=100)
    new = paid_turn(key)
    reserved = hold(90, response_id=new.response.id)
    first = await store.accounts.admit(key.id, request=False, hold=reserved)
    assert first.state is State.OK and first.tokens.remaining == 10
    again = await store.accounts.admit(key.id, request=False, hold=reserved)
    assert again.state is State.OK and again.tokens.remaining >= 10  # the same hold, not another one
    refused = await store.accounts.admit(key.id, request=False, hold=hold(20))
    assert refused.state is State.TOKENS and 0 < refused.retry_ms <= 6000
    large = await store.accounts.admit(key.id, request=False, hold=hold(101))
    assert large.state is State.TOO_LARGE and large.retry_ms is None
    await begin(store, new)
    await answer_it(store, new)  # uses 3 + 2
    assert await store.accounts.settle(key.id) == 1 and await store.accounts.settle(key.id) == 0
    assert (await store.accounts.admit(key.id, request=False, hold=hold(95))).state is State.OK


async def test_an_answer_longer_than_its_estimate_is_owed_for_a_minute_at_most(store):
    key = await stored(store, tokens=4)
    new = paid_turn(key)
    await store.accounts.admit(key.id, request=False, hold=hold(1, response_id=new.response.id))
    await begin(store, new)
    claimed = await claim(store)
    outcome = replace(outcome_of(claimed, "hi"), usage=Usage(1000, 0, 1000))
    await store.turns.finish(claimed, outcome, closing(outcome, 2), {})
    await store.accounts.settle()
    verdict = await store.accounts.admit(key.id, request=False, hold=hold(1))
    assert verdict.state is State.TOKENS and 60_000 < verdict.retry_ms <= 75_000


async def test_concurrent_answers_end_with_their_answers(store):
    key = await stored(store, concurrent=2)
    turns = [paid_turn(key, shard=shard) for shard in (3, 5)]
    for new in turns:
        assert (
            await store.accounts.admit(key.id, request=False, hold=hold(response_id=new.response.id))
        ).state is State.OK
        await begin(store, new)
    third = hold()
    refused = await store.accounts.admit(key.id, request=False, hold=third)
    assert refused.state is State.CONCURRENT and refused.retry_ms == 1000
    await store.turns.stop("acme", turns[1].response.id, NOW)  # ends at once: nobody has claimed it
    assert await store.accounts.settle(key.id) == 1
    assert (await store.accounts.admit(key.id, request=False, hold=third)).state is State.OK
    await store.accounts.release(key.id, third)
    await store.accounts.release(key.id, third)
    assert (await store.accounts.admit(key.id, request=False, hold=hold())).state is State.OK


async def test_money_is_held_and_never_goes_over(store):
    """All or nothing: a refusal leaves the sum as it was, and sums beyond 2⁵³ are compared exactly."""
    limit = 2**60
    key = await stored(store, spend=limit)
    assert (await store.accounts.admit(key.id, request=False, hold=hold())).state is State.UNPRICED
    kept = hold(cost=limit - 1)
    assert (await store.accounts.admit(key.id, request=False, hold=kept)).state is State.OK
    refused = await store.accounts.admit(key.id, request=False, hold=hold(cost=2))
    assert refused.state is State.SPEND and refused.retry_ms is None
    assert await store.accounts.spent("acme", [key.id], MONTH) == [limit - 1]
    assert (await store.accounts.admit(key.id, request=False, hold=hold(cost=1))).state is State.OK
    await store.accounts.release(key.id, kept)
    assert await store.accounts.spent("acme", [key.id], MONTH) == [1]


async def test_usage_by_key_model_and_day(store):
    """Exact sums, also for a key that is not in the store; settled by whoever comes, once."""
    key = await stored(store)
    for new in (
        paid_turn(key),
        paid_turn(key),
        paid_turn(ApiKey("static-1", "acme", "")),
    ):
        await begin(store, new)
        await answer_it(store, new)  # 3 of the prompt, 1 of them cached, 2 written
    counted = await asyncio.gather(store.accounts.settle(), store.accounts.settle(), store.accounts.settle())
    assert sum(counted) >= 3
    rows = await store.accounts.used("acme", DAY, DAY)
    cost = 70_000 + 2 * 270_000 + 2 * 1_100_000
    assert [(r.key, r.answers, r.usage, r.cost, r.day) for r in rows] == [
        (key.id, 2, Usage(6, 2, 4), 2 * cost, DAY),
        ("static-1", 1, Usage(3, 1, 2), cost, DAY),
    ]
    assert await store.accounts.used("acme", "2023-11-15", "2024-02-01") == []
    assert len(await store.accounts.used("acme", "2023-01-01", "2024-02-01")) == 2
    assert await store.accounts.used("other", DAY, DAY) == []
    assert await store.accounts.spent("acme", [key.id, "static-1"], MONTH) == [2 * cost, cost]
    assert await store.accounts.tenants() == ["acme"]


async def test_a_bill_outlives_its_response(store):
    """Deleting an answer right after its end does not make it free."""
    key = await stored(store)
    new = paid_turn(key)
    await begin(store, new)
    await answer_it(store, new)
    await store.turns.delete("acme", new.response.id)
    assert await store.accounts.settle() == 1
    assert (await store.accounts.used("acme", DAY, DAY))[0].answers == 1


async def test_a_settler_that_dies_in_between_changes_nothing(store, client):
    """Counted, but the bill still there: the next one finds the mark."""
    key = await stored(store)
    new = paid_turn(key)
    await begin(store, new)
    await answer_it(store, new)
    shard = keys.response(new.response.id).shard
    bill = await client.run(shard, ("HGET", keys.due(shard), new.response.id))
    await store.accounts.settle()
    home = key_shard(key.id)
    assert 0 < await client.run(home, ("TTL", keys.settled(home, new.response.id))) <= 60
    await client.run(shard, ("HSET", keys.due(shard), new.response.id, bill))
    assert await store.accounts.settle() == 1
    assert (await store.accounts.used("acme", DAY, DAY))[0].answers == 1


async def test_a_settler_that_stood_still_for_minutes_changes_nothing(store, client, monkeypatch):
    """It has read the bill; meanwhile others settled it, and even the mark that says so is gone."""
    key = await stored(store)
    new = paid_turn(key)
    await begin(store, new)
    await answer_it(store, new)
    pipeline = client.pipeline

    async def stood_still(commands, **options):
        if "settle" in map(title, (command for _, command in commands)):
            monkeypatch.setattr(client, "pipeline", pipeline)
            assert await store.accounts.settle() == 1
            home = key_shard(key.id)
            assert await client.run(home, ("DEL", keys.settled(home, new.response.id))) == 1
        return await pipeline(commands, **options)

    monkeypatch.setattr(client, "pipeline", stood_still)
    monkeypatch.setattr(accounts.ValkeyAccounts, "_now", long_ago(store.accounts))
    assert await store.accounts.settle() == 0
    assert (await store.accounts.used("acme", DAY, DAY))[0].answers == 1


def long_ago(settler):
    """A clock whose first look was a minute before the later ones."""
    now, late = settler._now, iter((2 * accounts.SETTLE_WITHIN,))

    async def look(_self) -> int:
        return await now() - next(late, 0)

    return look


async def test_overdue_holds(store):
    """A web process died before it began its answer, or an engine in the middle of one."""
    key = await stored(store, concurrent=3, tokens=100, spend=1000)
    never, running, ended = paid_turn(key), paid_turn(key, shard=4), paid_turn(key)
    for new in (never, running, ended):
        kept = hold(20, 300, new.response.id)
        assert (await store.accounts.admit(key.id, request=False, hold=kept)).state is State.OK
    await begin(store, running)
    await begin(store, ended)
    await answer_it(store, ended)
    assert await store.accounts.review() == 0  # nothing is overdue
    assert await store.accounts.review(early=1000) == 2
    assert (await store.accounts.admit(key.id, request=False, hold=hold(75))).state is State.UNPRICED
    cost = PRICE.cost(prompt=3, cached=1, output=2)
    assert await store.accounts.spent("acme", [key.id], MONTH) == [300 + cost]
    assert (await store.accounts.used("acme", DAY, DAY))[0].answers == 1
    assert await store.accounts.review(early=1000) == 0


async def test_a_response_without_a_payer_leaves_no_bill(store):
    new = turn()
    await store.turns.begin(new, queue_bound=BOUND)
    await answer_it(store, new)
    assert await store.accounts.settle() == 0 and await store.accounts.tenants() == []
    assert (await store.turns.get("acme", new.response.id)).payer == ""


async def test_payer_and_price_come_back_with_the_response(store):
    new = paid_turn(key_of())
    await begin(store, new)
    found = await store.turns.get("acme", new.response.id)
    assert found.payer == new.response.payer and found.price == PRICE
