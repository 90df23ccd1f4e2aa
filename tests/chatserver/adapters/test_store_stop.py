"""The contract of the port `Turns`: stopping, reading and forgetting responses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chatserver.adapters.valkey import ValkeyStore
from chatserver.domain.response import Finish, Outcome, Status, Usage
from chatserver.domain.tape import Delta, Ended, Interrupted, Record
from chatserver.errors import Conflict, NotFound
from chatserver.ports.tapes import Append
from tests.chatserver.adapters.things import (
    NO_ID,
    NOW,
    TENANT,
    answered,
    begin,
    claim,
    closing,
    delta,
    first_turn,
    opening,
    outcome_of,
    texts,
    turn,
)


async def test_a_waiting_job_is_cancelled_at_once(store: ValkeyStore) -> None:
    new = first_turn()
    await begin(store, new)
    stopped = await store.turns.stop(TENANT, new.response.id, NOW + 1)
    expected = Outcome(Status.CANCELLED, Finish.STOPPED, Usage(), completed_at=NOW + 1)
    assert (stopped.status, stopped.stop_asked, stopped.outcome) == (Status.CANCELLED, True, expected)
    assert await store.turns.stop(TENANT, new.response.id, NOW + 9) == stopped
    assert await store.turns.get(TENANT, new.response.id) == stopped
    assert (await store.tapes.read(new.response.id, 1)) == [Record(2, Ended(expected))]
    assert await store.turns.claim("eng-a", lease=30) == []
    assert await texts(store, new.response.conversation) == ["hello"]
    await begin(store, turn(new.response.conversation, parent=new.items[0].id, exclusive=True))


async def test_a_cancelled_regeneration_gives_the_head_back(store: ValkeyStore) -> None:
    new = first_turn()
    await answered(store, new)
    again = turn(new.response.conversation, parent=new.items[0].id, texts=())
    await begin(store, again)
    await store.turns.stop(TENANT, again.response.id, NOW)
    assert await texts(store, new.response.conversation) == ["hello", "hi"]


async def test_a_running_job_is_only_told(store: ValkeyStore) -> None:
    await begin(store, turn())
    claimed = await claim(store)
    stopped = await store.turns.stop(TENANT, claimed.id, NOW)
    assert stopped == replace(claimed, stop_asked=True)
    outcome = outcome_of(claimed, status=Status.CANCELLED)
    assert await store.turns.finish(claimed, outcome, closing(outcome, 2), {})
    ended = await store.turns.stop(TENANT, claimed.id, NOW)
    assert ended.status is Status.CANCELLED


async def test_a_job_that_was_put_back_with_text_is_left_to_the_next_engine(store: ValkeyStore) -> None:
    await begin(store, turn())
    claimed = await claim(store)
    await store.tapes.commit([opening(claimed), delta(claimed, 5, "half")])
    await store.turns.release("eng-a")
    stopped = await store.turns.stop(TENANT, claimed.id, NOW)
    assert (stopped.status, stopped.stop_asked) == (Status.IN_PROGRESS, True)
    following = await claim(store, "eng-b")
    assert following.stop_asked
    assert (await store.tapes.read(claimed.id, 4))[0].body == Delta(("half",), (5,))
    assert (await store.tapes.read(claimed.id, 5))[0].body == Interrupted()


@pytest.mark.parametrize("unknown", [f"resp_03{NO_ID}", f"chatcmpl_03{NO_ID}", f"conv_03{NO_ID}", "…", ""])
async def test_unknown_responses_are_not_found(store: ValkeyStore, unknown: str) -> None:
    with pytest.raises(NotFound):
        await store.turns.get(TENANT, unknown)
    with pytest.raises(NotFound):
        await store.turns.stop(TENANT, unknown, NOW)
    with pytest.raises(NotFound):
        await store.turns.delete(TENANT, unknown)


async def test_foreign_responses_are_not_found(store: ValkeyStore) -> None:
    new = turn(tenant="other")
    await begin(store, new)
    for step in (store.turns.get, store.turns.delete):
        with pytest.raises(NotFound):
            await step(TENANT, new.response.id)
    with pytest.raises(NotFound):
        await store.turns.stop(TENANT, new.response.id, NOW)
    assert not (await store.turns.get("other", new.response.id)).stop_asked


async def test_a_deleted_response_leaves_its_items(store: ValkeyStore) -> None:
    new = first_turn()
    await begin(store, new)
    with pytest.raises(Conflict):
        await store.turns.delete(TENANT, new.response.id)
    claimed = await claim(store)
    with pytest.raises(Conflict):
        await store.turns.delete(TENANT, new.response.id)
    outcome = outcome_of(claimed, "hi")
    await store.turns.finish(claimed, outcome, closing(outcome, 2), {})
    await store.turns.delete(TENANT, new.response.id)
    with pytest.raises(NotFound):
        await store.turns.get(TENANT, new.response.id)
    with pytest.raises(NotFound):
        await store.tapes.read(new.response.id, -1)
    assert await texts(store, new.response.conversation) == ["hello", "hi"]
    late = Append(claimed.id, claimed.claim, closing(outcome, 2))
    assert not (await store.tapes.commit([late]))[0].ok
