"""The contract of the port `Tapes`."""

from __future__ import annotations

import pytest

from chatserver.adapters.valkey import ValkeyStore, pens, tapes
from chatserver.domain.response import Response
from chatserver.domain.tape import Accepted, Cursor, Delta, Interrupted, Queued, Record, Started
from chatserver.errors import NotFound
from chatserver.ports.tapes import Append, Appended
from tests.chatserver.adapters.things import (
    BOUND,
    NO_ID,
    NOW,
    SHARD,
    TENANT,
    answered,
    closing,
    delta,
    first_turn,
    name,
    opening,
    outcome_of,
    turn,
)

OK = Appended(ok=True, stop_asked=False)
REFUSED = Appended(ok=False, stop_asked=False)


async def running(store: ValkeyStore, shard: int = SHARD) -> Response:
    """A response that an engine has just claimed."""
    await store.turns.begin(turn(shard=shard), queue_bound=1000)
    (claimed,) = await store.turns.claim("eng-a", lease=30, shard=shard)
    return claimed


async def test_a_tape_exists_with_its_response(store: ValkeyStore) -> None:
    new = turn()
    await store.turns.begin(new, queue_bound=BOUND)
    assert await store.tapes.read(new.response.id, -1) == [Record(0, Accepted()), Record(1, Queued())]
    assert await store.tapes.read(new.response.id, 0) == [Record(1, Queued())]
    assert await store.tapes.read(new.response.id, 1) == []


async def test_records_are_read_from_any_position(store: ValkeyStore) -> None:
    """The first record may be half seen; the cursor trims it."""
    response = await running(store)
    assert await store.tapes.commit([opening(response)]) == [OK]
    assert await store.tapes.commit([delta(response, 5, "a", "b", "c"), delta(response, 8, "d")]) == [OK, OK]
    whole = Record(7, Delta(("a", "b", "c"), (5, 6, 7)))
    for after in (4, 5, 6):
        assert (await store.tapes.read(response.id, after))[0] == whole
    assert await store.tapes.read(response.id, 7) == [Record(8, Delta(("d",), (8,)))]
    assert len(await store.tapes.read(response.id, -1, limit=3)) == 3
    assert len(await store.tapes.read(response.id, -50)) == 6


@pytest.mark.parametrize("unknown", [f"resp_03{NO_ID}", f"conv_03{NO_ID}", "nonsense"])
async def test_an_unknown_tape_is_not_found(store: ValkeyStore, unknown: str) -> None:
    with pytest.raises(NotFound):
        await store.tapes.read(unknown, -1)


async def test_appending_twice_changes_nothing_and_is_ok(store: ValkeyStore) -> None:
    """Also when a batch was written in part, and also after the end."""
    response = await running(store)
    first, second = opening(response), delta(response, 5, "a", "b")
    await store.tapes.commit([first])
    assert await store.tapes.commit([first]) == [OK]
    together = Append(response.id, response.claim, first.records + second.records)
    assert await store.tapes.commit([together]) == [OK]
    assert await store.tapes.commit([together, second]) == [OK, OK]
    assert [record.last for record in await store.tapes.read(response.id, -1)] == [0, 1, 2, 4, 6]
    outcome = outcome_of(response)
    assert await store.turns.finish(response, outcome, closing(outcome, 7), {})
    assert await store.tapes.commit([second]) == [OK]
    assert await store.tapes.commit([delta(response, 8, "late")]) == [REFUSED]


async def test_records_cut_differently_are_read_once(store: ValkeyStore) -> None:
    response = await running(store)
    await store.tapes.commit([opening(response), delta(response, 5, "a", "b")])
    assert await store.tapes.commit([delta(response, 6, "b", "c")]) == [OK]
    cursor = Cursor(4)
    records = [cursor.take(record) for record in await store.tapes.read(response.id, 4)]
    assert "".join(r.body.text for r in records if r and isinstance(r.body, Delta)) == "abc"


async def test_a_gap_is_refused(store: ValkeyStore) -> None:
    response = await running(store)
    assert await store.tapes.commit([delta(response, 6, "x")]) == [REFUSED]
    with pytest.raises(ValueError, match="begins at 3"):
        await store.tapes.commit(
            [Append(response.id, 1, (Record(2, Started(1)), Record(9, Delta(("x",), (1,)))))]
        )
    assert len(await store.tapes.read(response.id, -1)) == 2


async def test_an_old_claim_is_fenced_off(store: ValkeyStore) -> None:
    old = await running(store)
    await store.tapes.commit([opening(old)])
    assert await store.turns.release("eng-a") == 1
    (new,) = await store.turns.claim("eng-b", lease=30, shard=SHARD)
    assert (new.id, new.claim) == (old.id, 2)
    results = await store.tapes.commit([delta(old, 5, "stale"), delta(new, 6, "fresh")])
    assert results == [REFUSED, OK]
    assert await store.tapes.commit([opening(old)]) == [REFUSED]
    assert [record.body for record in await store.tapes.read(old.id, 4)] == [
        Interrupted(),
        Delta(("fresh",), (6,)),
    ]


async def test_who_lost_a_job_writes_nothing_before_it_is_claimed_again(store: ValkeyStore) -> None:
    """Otherwise its tokens would take the numbers of what tells readers that it is gone."""
    old = await running(store)
    await store.tapes.commit([opening(old)])
    await store.turns.release("eng-a")
    assert await store.tapes.commit([delta(old, 5, "a", "b", "c")]) == [REFUSED]
    assert [record.body for record in await store.tapes.read(old.id, 4)] == [Interrupted()]


async def test_one_commit_writes_many_tapes_of_all_shards(
    store: ValkeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results come in the order of the batch, however it is cut into steps."""
    monkeypatch.setattr(pens, "STROKE", 3)
    responses = [await running(store, shard) for shard in [*range(16), *[SHARD] * 7]]
    batch = [opening(response) for response in responses]
    batch.insert(5, Append(f"resp_05{NO_ID}", 1, batch[0].records))
    assert await store.tapes.commit(batch) == [OK] * 5 + [REFUSED] + [OK] * (len(responses) - 5)
    for response in responses:
        assert len(await store.tapes.read(response.id, -1)) == 4
    assert await store.tapes.commit([]) == []
    assert await store.tapes.commit([Append(responses[0].id, 1, ())]) == [OK]


async def test_a_stop_is_seen_by_the_next_append(store: ValkeyStore) -> None:
    response = await running(store)
    await store.turns.stop(TENANT, response.id, NOW)
    assert await store.tapes.commit([opening(response)]) == [Appended(ok=True, stop_asked=True)]


async def test_a_watch_before_an_append_brings_it_and_one_after_it_does_not(store: ValkeyStore) -> None:
    """Whoever watches first is told, whoever watches later reads: between them nothing is lost."""
    watched, other = await running(store), await running(store)
    listening = store.signals.bundles("web-a")
    assert await anext(listening) is None
    await store.tapes.commit([opening(watched)])
    await store.tapes.watch([watched.id], "web-a")
    await store.tapes.watch([watched.id], "web-a")
    await store.tapes.watch([watched.id], "web-b")
    await store.tapes.commit([delta(watched, 5, "a"), opening(other)])
    assert await anext(listening) == [(watched.id, list(delta(watched, 5, "a").records))]
    assert [record.last for record in await store.tapes.read(watched.id, 1)] == [2, 4, 5]
    await store.tapes.unwatch(watched.id, "web-a")
    await store.tapes.commit([delta(watched, 6, "b")])
    await store.tapes.watch([other.id], "web-a")
    both = [delta(other, 5, "c"), delta(watched, 7, "d")]
    await store.tapes.commit(both)
    assert await anext(listening) == [(other.id, list(both[0].records))]
    await listening.aclose()  # type: ignore[attr-defined]


async def test_one_commit_is_one_bundle_a_web_process(store: ValkeyStore) -> None:
    responses = [await running(store, shard) for shard in (1, 2, 2, 9)]
    for response in responses:
        await store.tapes.watch([response.id], "web-a")
    listening = store.signals.bundles("web-a")
    await anext(listening)
    batch = [opening(response) for response in responses]
    await store.tapes.commit(batch)
    bundle = await anext(listening)
    assert bundle is not None
    assert sorted(bundle) == sorted((append.response_id, list(append.records)) for append in batch)
    await listening.aclose()  # type: ignore[attr-defined]


async def test_a_turns_watcher_hears_of_everything(store: ValkeyStore) -> None:
    """From Started to Ended, in commits and in the steps that end and stop; how a tape begins, it knows."""
    listening = store.signals.bundles("web-a")
    await anext(listening)
    heard: list[int] = []
    finished = first_turn(watcher="web-a")
    await answered(store, finished)
    while len(heard) < 4:
        for tape, records in await anext(listening) or ():
            assert tape == finished.response.id
            heard += [record.last for record in records]
    # a cluster's servers tell each other: what two of them publish may overtake, and a reader's cursor minds
    assert sorted(heard) == [2, 4, 7, 8]
    stopped = turn(watcher="web-a")
    await store.turns.begin(stopped, queue_bound=BOUND)
    await store.turns.stop(TENANT, stopped.response.id, NOW)
    heard = [r.last for _, records in await anext(listening) or () for r in records]
    assert heard == [2]
    await listening.aclose()  # type: ignore[attr-defined]


async def test_watchers_are_bounded_and_nothing_is_kept_for_what_has_ended(
    store: ValkeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tapes, "MAX_WATCHERS", 2)
    response = await running(store)
    for web in ("web-a", "web-b", "web-c"):
        await store.tapes.watch([response.id], web)
    listening = store.signals.bundles("web-a")
    await anext(listening)
    await store.tapes.commit([opening(response)])
    await store.tapes.watch([response.id], "web-a")
    await store.tapes.commit([delta(response, 5, "x")])
    assert await anext(listening) == [(response.id, list(delta(response, 5, "x").records))]
    await store.tapes.watch([f"resp_03{NO_ID}"], "web-a")
    await store.tapes.unwatch(name("resp"), "web-a")
    await listening.aclose()  # type: ignore[attr-defined]
