"""The contract of the port `Turns`: how a response ends."""

from __future__ import annotations

import pytest

from chatserver.adapters.valkey import ValkeyStore, keys
from chatserver.adapters.valkey.client import Client
from chatserver.domain.response import Failure, Finish, Outcome, Response, Status, Usage
from chatserver.domain.tape import Ended, Record
from chatserver.errors import NotFound
from chatserver.ports.turns import RESPONSE_TTL
from tests.chatserver.adapters.things import (
    NOW,
    SHARD,
    TENANT,
    answered,
    begin,
    claim,
    closing,
    first_turn,
    opening,
    outcome_of,
    texts,
    turn,
)


async def test_finish_stores_all_in_one_step(store: ValkeyStore) -> None:
    new = first_turn()
    ended = await answered(store, new, "the answer")
    own = new.response.conversation
    assert own
    assert await store.turns.get(TENANT, ended.id) == ended
    found = await store.conversations.get(TENANT, own)
    assert (found.head, found.active, found.updated_at) == (ended.item_id, None, NOW + 5)
    branch = await store.conversations.branch(TENANT, own, found.head, with_ids=True)
    assert [(s.item.text, s.ids, s.template_hash) for s in branch] == [
        ("hello", (1, 2), "h"),
        ("the answer", (3, 4), "h"),
    ]
    assert ended.outcome and branch[1].item == ended.outcome.item
    tape = await store.tapes.read(ended.id, -1)
    assert tape[-1] == Record(8, Ended(ended.outcome))
    assert await store.turns.waiting() == 0
    assert await store.turns.release("eng-a") == 0


async def test_finish_that_is_sent_again_changes_nothing(store: ValkeyStore) -> None:
    await begin(store, turn())
    claimed = await claim(store)
    outcome = outcome_of(claimed, "x")
    await store.tapes.commit([opening(claimed)])
    for _ in range(2):
        assert await store.turns.finish(claimed, outcome, closing(outcome, 5), {})
    assert len(await store.tapes.read(claimed.id, -1)) == 6


async def test_finish_under_an_old_claim_changes_nothing(store: ValkeyStore) -> None:
    new = first_turn()
    await begin(store, new)
    old = await claim(store)
    await store.turns.release("eng-a")
    current = await claim(store, "eng-b")
    outcome = outcome_of(old, "stale")
    assert not await store.turns.finish(old, outcome, closing(outcome, 2), {})
    assert await store.turns.get(TENANT, old.id) == current
    assert len(await store.tapes.read(old.id, -1)) == 3  # Accepted, Queued, Interrupted
    assert await texts(store, new.response.conversation) == ["hello"]


async def test_finish_refuses_a_gap(store: ValkeyStore) -> None:
    await begin(store, turn())
    claimed = await claim(store)
    outcome = outcome_of(claimed)
    assert not await store.turns.finish(claimed, outcome, closing(outcome, 3), {})
    assert await store.turns.finish(claimed, outcome, closing(outcome, 2), {})


async def test_a_job_that_was_put_back_is_not_finished_by_who_held_it(store: ValkeyStore) -> None:
    """Its tape says that it was interrupted: only the next engine may go on behind that."""
    await begin(store, turn())
    claimed = await claim(store)
    await store.turns.release("eng-a")
    outcome = outcome_of(claimed)
    for first in (2, 3):
        assert not await store.turns.finish(claimed, outcome, closing(outcome, first), {})
    assert await store.turns.waiting() == 1
    again = await claim(store, "eng-b")
    assert await store.turns.finish(again, outcome, closing(outcome, 3), {})


@pytest.mark.parametrize("stored", [True, False])
async def test_what_has_ended_is_kept_for_a_while(store: ValkeyStore, client: Client, stored: bool) -> None:
    new = turn(stored=stored)
    ended = await answered(store, new, "x")
    key = keys.response(ended.id)
    assert 0 < await client.run(SHARD, ("TTL", key.tape)) <= RESPONSE_TTL
    ttl = await client.run(SHARD, ("TTL", key.fields))
    assert ttl == -1 if stored else 0 < ttl <= RESPONSE_TTL


async def test_how_long_that_is_can_be_set(client: Client) -> None:
    ended = await answered(ValkeyStore(client, tape_ttl=30), turn(stored=False), "x")
    key = keys.response(ended.id)
    for name in (key.tape, key.fields):
        assert 0 < await client.run(SHARD, ("TTL", name)) <= 30


def refusal(response: Response) -> tuple[Outcome, tuple[Record, ...]]:
    failure = Failure("context_length_exceeded", "too long", status=400)
    outcome = Outcome(Status.FAILED, Finish.ERROR, Usage(), failure=failure, completed_at=NOW)
    return outcome, closing(outcome, 2)


async def test_a_refused_turn_takes_its_input_back(store: ValkeyStore) -> None:
    new = first_turn()
    await answered(store, new)
    own, head = new.response.conversation, new.response.item_id
    await begin(store, turn(own, parent=head, texts=("too", "long")))
    claimed = await claim(store)
    outcome, records = refusal(claimed)
    ids = dict.fromkeys(claimed.inputs, (1,))
    assert await store.turns.finish(claimed, outcome, records, ids, discard_inputs=True)
    assert await texts(store, own) == ["hello", "hi"]
    assert own
    for item_id in claimed.inputs:
        with pytest.raises(NotFound):
            await store.conversations.branch(TENANT, own, item_id, with_ids=False)
    await begin(store, turn(own, parent=head, exclusive=True))


async def test_a_refused_first_turn_leaves_an_empty_conversation(store: ValkeyStore) -> None:
    new = first_turn()
    await begin(store, new)
    outcome, records = refusal(claimed := await claim(store))
    assert await store.turns.finish(claimed, outcome, records, {}, discard_inputs=True)
    assert new.response.conversation
    assert (await store.conversations.get(TENANT, new.response.conversation)).head is None


async def test_a_refused_branch_gives_the_head_back_to_where_it_was(store: ValkeyStore) -> None:
    """Of an edit of an old message, and of a regeneration."""
    new = first_turn()
    await answered(store, new)
    own = new.response.conversation
    for edit in (turn(own), turn(own, parent=new.items[0].id, texts=())):
        await begin(store, edit)
        outcome, records = refusal(claimed := await claim(store))
        assert await store.turns.finish(claimed, outcome, records, {}, discard_inputs=True)
        assert await texts(store, own) == ["hello", "hi"]


async def test_input_that_others_build_on_is_not_taken_back(store: ValkeyStore) -> None:
    new = first_turn()
    await begin(store, new)
    own = new.response.conversation
    below = turn(own, parent=new.items[0].id, texts=("below",))
    await begin(store, below)
    outcome, records = refusal(claimed := await claim(store))
    assert await store.turns.finish(claimed, outcome, records, {}, discard_inputs=True)
    assert await texts(store, own) == ["hello", "below"]


async def test_an_answer_to_a_conversation_that_moved_on_does_not_move_its_head(store: ValkeyStore) -> None:
    new = first_turn()
    await begin(store, new)
    slow = await claim(store)
    await begin(store, turn(new.response.conversation, texts=("elsewhere",)))
    outcome = outcome_of(slow, "late")
    assert await store.turns.finish(slow, outcome, closing(outcome, 2), {})
    assert await texts(store, new.response.conversation) == ["elsewhere"]
