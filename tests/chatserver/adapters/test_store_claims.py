"""The contract of the port `Turns`: claims and leases."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import replace

import pytest

from chatserver.adapters.valkey import ValkeyStore, keys
from chatserver.adapters.valkey import turns as turns_module
from chatserver.adapters.valkey.client import Client
from chatserver.domain.ids import SHARDS, shard_of
from chatserver.domain.response import Status
from chatserver.errors import Unavailable
from chatserver.ports.turns import MAX_CLAIM
from tests.chatserver.adapters.things import (
    SHARD,
    TENANT,
    begin,
    claim,
    name,
    turn,
)


async def test_jobs_are_claimed_oldest_first(store: ValkeyStore) -> None:
    made = [turn() for _ in range(3)]
    for new in made:
        await begin(store, new)
    assert await store.turns.waiting() == 3
    first = await claim(store)
    assert first == replace(made[0].response, status=Status.IN_PROGRESS, claim=1, owner="eng-a")
    assert [(await claim(store)).id for _ in range(2)] == [new.response.id for new in made[1:]]
    assert await store.turns.claim("eng-a", lease=30, shard=SHARD) == []
    assert await store.turns.claim("eng-a", lease=30) == []
    assert await store.turns.waiting() == 0


async def test_a_claim_of_any_shard_finds_all(store: ValkeyStore) -> None:
    made = [turn(shard=shard) for shard in range(SHARDS)]
    for new in made:
        await begin(store, new)
    found = [await store.turns.claim("eng-a", lease=30) for _ in made]
    assert {response.id for (response,) in found} == {new.response.id for new in made}


async def test_how_many_are_before_a_job_is_what_engines_then_claim(store: ValkeyStore) -> None:
    """Shards are taken in turn, so a short queue's second job is before a long queue's third."""
    long, short = [turn(shard=3) for _ in range(4)], [turn(shard=5) for _ in range(2)]
    for new in (*long, *short):
        await begin(store, new)
    ids = [new.response.id for new in (*long, *short)]
    assert await store.turns.ahead(ids) == [0, 2, 4, 5, 0, 2]
    order = [(await claim_any(store)).id for _ in range(2)]
    assert set(order) == {long[0].response.id, short[0].response.id}
    assert await store.turns.ahead(ids) == [None, 0, 2, 3, None, 0]
    assert await store.turns.ahead([]) == []


async def claim_any(store: ValkeyStore):
    (found,) = await store.turns.claim("eng-a", lease=30)
    return found


async def test_one_claim_takes_of_shards_in_turn(store: ValkeyStore) -> None:
    """A long queue does not keep a short one waiting, and the next claim begins behind the last shard served."""
    for shard in (3, 3, 3, 3, 5, 5, 9):
        await begin(store, turn(shard=shard))
    claims = [await store.turns.claim("eng-a", lease=30, most=most) for most in (4, 2, 9)]
    shards = [[shard_of(response.id) for response in found] for found in claims]
    assert [sorted(of) for of in shards] == [[3, 3, 5, 9], [3, 5], [3]]


@pytest.mark.parametrize("together", [True, False])
async def test_one_claim_takes_the_share_of_an_engine(store: ValkeyStore, together: bool) -> None:
    """Of what waits, so that other engines get theirs; of shards in turn; never more than was asked for."""
    store.turns._client.together &= together
    claim_share = functools.partial(store.turns.claim, "eng-a", lease=30, engines=8)
    made = [turn(shard=shard % 3) for shard in range(40)]
    for new in made:
        await begin(store, new, 100)
    taken = [await claim_share(most=most) for most in (100, 3, 100, 1)]
    assert [len(found) for found in taken] == [5, 3, 4, 1]
    while found := await claim_share(most=100):
        taken.append(found)
    assert max(map(len, taken)) == 5 and len(taken[-1]) == 1
    claimed = [response for found in taken for response in found]
    assert {(response.claim, response.owner) for response in claimed} == {(1, "eng-a")}
    for shard in range(3):
        asked = [new.response.id for new in made if shard_of(new.response.id) == shard]
        assert [response.id for response in claimed if shard_of(response.id) == shard] == asked


async def test_a_lone_engine_takes_all_up_to_a_bound(store: ValkeyStore) -> None:
    """One claim brings MAX_CLAIM whole requests at most."""
    for shard in range(MAX_CLAIM + 3):
        await begin(store, turn(shard=shard % SHARDS), 100)
    claims = [await store.turns.claim("eng-a", lease=30, most=100) for _ in range(3)]
    assert [len(found) for found in claims] == [MAX_CLAIM, 3, 0]


async def test_what_was_claimed_before_the_store_went_away_is_kept(
    store: ValkeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a cluster the second shard's answer is lost: the first one's jobs are ours, and are not waited out."""
    for shard in (1, 2):
        for _ in range(8):
            await begin(store, turn(shard=shard), 100)
    run, lost = store.turns._client.run, []

    async def broken(shard, command, **options):
        if not lost and shard == 2 and options:
            lost.append(shard)
            raise Unavailable("lost")
        return await run(shard, command, **options)

    monkeypatch.setattr(store.turns._client, "run", broken)
    monkeypatch.setattr(store.turns._client, "together", False)
    assert [shard_of(response.id) for response in await store.turns.claim("a", lease=30, most=16)] == [1] * 8
    assert lost == [2]
    assert [shard_of(response.id) for response in await store.turns.claim("a", lease=30, most=16)] == [2] * 8


async def test_two_engines_racing_get_disjoint_jobs(store: ValkeyStore, server_url: str) -> None:
    """From two connections at once, every job goes to exactly one engine."""
    made = [turn(shard=i % 3) for i in range(60)]
    for new in made:
        await begin(store, new, 100)
    other = await ValkeyStore.open(server_url)

    async def work(own: ValkeyStore, engine: str) -> list[str]:
        taken = []
        while claimed := await own.turns.claim(engine, lease=30, most=4):
            assert {(response.claim, response.owner) for response in claimed} == {(1, engine)}
            taken += [response.id for response in claimed]
        return taken

    shares = await asyncio.gather(*(work(s, f"eng-{i}") for i, s in enumerate([store, other] * 3)))
    await other.close()
    taken = [response_id for share in shares for response_id in share]
    assert sorted(taken) == sorted(new.response.id for new in made)


async def test_release_puts_jobs_back_at_the_front(store: ValkeyStore) -> None:
    made = [turn() for _ in range(4)]
    for new in made:
        await begin(store, new)
    mine = [await claim(store) for _ in range(2)]
    theirs = await claim(store, "eng-b")
    assert await store.turns.release("eng-a") == 2
    assert await store.turns.release("eng-a") == 0
    assert await store.turns.waiting() == 3
    back = await store.turns.get(TENANT, mine[0].id)
    assert (back.status, back.owner, back.claim) == (Status.IN_PROGRESS, None, 1)
    order = [(await claim(store, "eng-c")) for _ in range(3)]
    assert [r.id for r in order] == [mine[0].id, mine[1].id, made[3].response.id]
    assert [r.claim for r in order] == [2, 2, 1]
    assert await store.turns.renew("eng-b", [theirs.id, mine[0].id], lease=30) == [mine[0].id]


async def test_a_lease_that_ran_out_is_reaped(store: ValkeyStore) -> None:
    """One that was renewed is not; what was reaped is lost to its engine."""
    for _ in range(2):
        await begin(store, turn())
    first, second = await claim(store, lease=0.05), await claim(store, lease=0.05)
    assert await store.turns.renew("eng-a", [first.id], lease=30) == []
    await asyncio.sleep(0.1)
    assert await store.turns.reap() == 1
    assert await store.turns.reap() == 0
    assert await store.turns.renew("eng-a", [first.id, second.id], lease=30) == [second.id]
    assert await store.turns.renew("eng-a", [], lease=30) == []
    assert await store.turns.renew("eng-a", [name("resp")], lease=30) != []
    assert (await claim(store, "eng-b")).id == second.id


async def test_many_leases_are_reaped_in_steps(store: ValkeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "REAP_STEP", 2)
    for _ in range(5):
        await begin(store, turn())
        await claim(store, lease=0.001)
    await asyncio.sleep(0.05)
    assert await store.turns.reap() == 5


async def test_a_job_whose_response_is_gone_is_skipped(store: ValkeyStore, client: Client) -> None:
    """An operator may have removed it by hand."""
    made = [turn() for _ in range(3)]
    for new in made:
        await begin(store, new)
    await client.run(SHARD, ("DEL", keys.response(made[0].response.id).fields))
    assert (await claim(store, lease=0.001)).id == made[1].response.id
    await client.run(SHARD, ("DEL", keys.response(made[1].response.id).fields))
    await asyncio.sleep(0.05)
    assert await store.turns.reap() == 0
    assert (await claim(store)).id == made[2].response.id
