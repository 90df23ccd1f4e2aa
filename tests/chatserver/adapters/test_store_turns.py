"""The contract of the port `Turns`."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from chatserver.adapters.valkey import ValkeyStore, conversations, keys
from chatserver.adapters.valkey import turns as turns_module
from chatserver.adapters.valkey.client import Client
from chatserver.domain.ids import SHARDS
from chatserver.domain.response import Failure, Finish, Outcome, Response, Status, Usage
from chatserver.domain.tape import Delta, Ended, Record
from chatserver.errors import Conflict, NotFound, Overloaded
from chatserver.ports.tapes import Append
from chatserver.ports.turns import RESPONSE_TTL, Begun, NewTurn
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
    message,
    name,
    opening,
    outcome_of,
    turn,
)


async def begin(store: ValkeyStore, new: NewTurn, bound: int = BOUND) -> Begun:
    return await store.turns.begin(new, queue_bound=bound)


async def claim(store: ValkeyStore, engine: str = "eng-a", lease: float = 30.0) -> Response:
    claimed = await store.turns.claim(engine, lease=lease, shard=SHARD)
    assert claimed is not None
    return claimed


async def texts(store: ValkeyStore, conversation_id: str | None) -> list[str]:
    """The texts on the conversation's current branch."""
    assert conversation_id
    head = (await store.conversations.get(TENANT, conversation_id)).head
    branch = await store.conversations.branch(TENANT, conversation_id, head, with_ids=False)
    return [stored.item.text for stored in branch]


# begin


async def test_a_turn_can_make_its_conversation(store: ValkeyStore) -> None:
    new = first_turn(title="A question")
    assert await begin(store, new) == Begun(new.response.id, fresh=True)
    conversation_id = new.response.conversation
    assert conversation_id
    found = await store.conversations.get(TENANT, conversation_id)
    assert (found.title, found.head, found.active) == ("A question", new.items[0].id, new.response.id)
    assert await store.turns.get(TENANT, new.response.id) == new.response
    assert [c.id for c in await store.conversations.list(TENANT, limit=5)] == [conversation_id]
    with pytest.raises(Conflict):
        await begin(store, replace(first_turn(), response=turn(conversation_id).response))


async def test_a_begin_that_is_sent_again_is_the_same(store: ValkeyStore) -> None:
    """Its first answer may have been lost."""
    new = first_turn()
    for _ in range(2):
        assert await begin(store, new) == Begun(new.response.id, fresh=True)
    assert await store.turns.waiting() == 1
    assert await texts(store, new.response.conversation) == ["hello"]


async def test_an_idempotency_key_gives_the_earlier_response(store: ValkeyStore) -> None:
    new = first_turn(idempotency_key="k {x}", fingerprint="body one")
    await begin(store, new)
    again = first_turn(idempotency_key="k {x}", fingerprint="body one")
    assert await begin(store, again) == Begun(new.response.id, fresh=False)
    assert await store.turns.waiting() == 1
    with pytest.raises(Conflict):
        await begin(store, first_turn(idempotency_key="k {x}", fingerprint="body two"))
    other = first_turn(idempotency_key="k {x}", fingerprint="body one", tenant="other")
    assert (await begin(store, other)).fresh


async def test_of_two_equal_requests_at_once_one_begins(store: ValkeyStore) -> None:
    both = [first_turn(idempotency_key="k", fingerprint="f") for _ in range(2)]
    begun = await asyncio.gather(*(begin(store, new) for new in both))
    assert sorted(b.fresh for b in begun) == [False, True]
    assert len({b.response_id for b in begun}) == 1


async def test_unknown_conversations_and_parents_are_not_found(store: ValkeyStore) -> None:
    new = first_turn()
    await begin(store, new)
    known = new.response.conversation
    for wrong in (
        turn(f"conv_03{NO_ID}"),
        turn(known, parent=name("msg")),
        turn(known, tenant="other"),
        turn(name("conv"), create=True, parent=name("msg")),
    ):
        with pytest.raises(NotFound):
            await begin(store, wrong)
        with pytest.raises(NotFound):
            await store.turns.get(wrong.response.tenant, wrong.response.id)
    assert await store.turns.waiting() == 1
    with pytest.raises(ValueError, match="one shard"):
        await begin(store, turn(f"conv_04{NO_ID}"))


async def test_an_exclusive_turn_is_refused_while_another_runs(store: ValkeyStore) -> None:
    new = first_turn(exclusive=True)
    await begin(store, new)
    own = new.response.conversation
    with pytest.raises(Conflict):
        await begin(store, turn(own, parent=new.items[0].id, exclusive=True))
    await answer_it(store, new)
    with pytest.raises(Conflict):
        await begin(store, turn(own, parent=new.items[0].id, exclusive=True))  # the head has moved
    following = turn(own, parent=new.response.item_id, exclusive=True, texts=("more",))
    await begin(store, following)
    assert await texts(store, own) == ["hello", "hi", "more"]


async def answer_it(store: ValkeyStore, new: NewTurn, text: str = "hi") -> None:
    claimed = await claim(store)
    assert claimed.id == new.response.id
    outcome = outcome_of(claimed, text)
    await store.tapes.commit([opening(claimed)])
    assert await store.turns.finish(claimed, outcome, closing(outcome, 5), {})


async def test_a_stale_tab_makes_a_branch(store: ValkeyStore) -> None:
    """Both branches exist, both may run at once, and nothing is overwritten."""
    new = first_turn()
    await answered(store, new)
    own, root = new.response.conversation, new.items[0].id
    left = turn(own, parent=new.response.item_id, texts=("left",))
    right = turn(own, parent=root, texts=("right",))
    await begin(store, left)
    await begin(store, right)
    assert own
    both = await store.conversations.get(TENANT, own)
    assert (both.head, both.active) == (right.items[0].id, right.response.id)
    await answer_it(store, left, "to the left")
    assert (await store.conversations.get(TENANT, own)).active == right.response.id
    assert await texts(store, own) == ["hello", "right"]
    with pytest.raises(Conflict):
        await store.conversations.append(TENANT, own, (message(),), NOW)
    await answer_it(store, right, "to the right")
    assert await texts(store, own) == ["hello", "right", "to the right"]
    leaf = left.response.item_id
    branch = await store.conversations.branch(TENANT, own, leaf, with_ids=False)
    assert [s.item.text for s in branch] == ["hello", "hi", "left", "to the left"]
    assert (await store.conversations.get(TENANT, own)).active is None


async def test_a_regenerated_answer_becomes_the_head(store: ValkeyStore) -> None:
    new = first_turn()
    await answered(store, new)
    again = turn(new.response.conversation, parent=new.items[0].id, texts=())
    await begin(store, again)
    await answer_it(store, again, "better")
    assert await texts(store, new.response.conversation) == ["hello", "better"]


async def test_a_full_queue_refuses_and_changes_nothing(store: ValkeyStore) -> None:
    await begin(store, turn(), 2)
    await begin(store, turn(), 2)
    new = first_turn()
    with pytest.raises(Overloaded) as refused:
        await begin(store, new, 2)
    assert refused.value.retry_after
    with pytest.raises(NotFound):
        await store.turns.get(TENANT, new.response.id)
    assert await store.conversations.list(TENANT, limit=5) == []
    await begin(store, turn(shard=SHARD + 1), 2)
    assert await store.turns.waiting() == 3


async def test_a_full_branch_refuses_a_turn(store: ValkeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "MAX_BRANCH", 3)
    new = first_turn()
    await answered(store, new)
    own, head = new.response.conversation, new.response.item_id
    with pytest.raises(Conflict):
        await begin(store, turn(own, parent=head))
    taken = turn(own, parent=new.items[0].id)
    with pytest.raises(Conflict):
        await begin(store, replace(taken, items=new.items))
    assert conversations.MAX_BRANCH > 3


async def test_a_title_is_given_once(store: ValkeyStore) -> None:
    new = first_turn()
    await answered(store, new)
    own = new.response.conversation
    assert own
    await begin(store, turn(own, parent=new.response.item_id, title="First"))
    await begin(store, turn(own, parent=new.response.item_id, title="Second"))
    assert (await store.conversations.get(TENANT, own)).title == "First"


# claim, renew, release, reap


async def test_jobs_are_claimed_oldest_first(store: ValkeyStore) -> None:
    made = [turn() for _ in range(3)]
    for new in made:
        await begin(store, new)
    assert await store.turns.waiting() == 3
    first = await claim(store)
    assert first == replace(made[0].response, status=Status.IN_PROGRESS, claim=1, owner="eng-a")
    assert [(await claim(store)).id for _ in range(2)] == [new.response.id for new in made[1:]]
    assert await store.turns.claim("eng-a", lease=30, shard=SHARD) is None
    assert await store.turns.claim("eng-a", lease=30) is None
    assert await store.turns.waiting() == 0


async def test_a_claim_of_any_shard_finds_all(store: ValkeyStore) -> None:
    made = [turn(shard=shard) for shard in range(SHARDS)]
    for new in made:
        await begin(store, new)
    found = [await store.turns.claim("eng-a", lease=30) for _ in made]
    assert {response.id for response in found if response} == {new.response.id for new in made}


async def test_two_engines_racing_get_disjoint_jobs(store: ValkeyStore, server_url: str) -> None:
    """From two connections at once, every job goes to exactly one engine."""
    made = [turn(shard=i % 3) for i in range(60)]
    for new in made:
        await begin(store, new, 100)
    other = await ValkeyStore.open(server_url)

    async def work(own: ValkeyStore, engine: str) -> list[str]:
        taken = []
        while response := await own.turns.claim(engine, lease=30):
            assert (response.claim, response.owner) == (1, engine)
            taken.append(response.id)
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


# finish


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
    assert len(await store.tapes.read(old.id, -1)) == 2
    assert await texts(store, new.response.conversation) == ["hello"]


async def test_finish_refuses_a_gap(store: ValkeyStore) -> None:
    await begin(store, turn())
    claimed = await claim(store)
    outcome = outcome_of(claimed)
    assert not await store.turns.finish(claimed, outcome, closing(outcome, 3), {})
    assert await store.turns.finish(claimed, outcome, closing(outcome, 2), {})


async def test_a_job_that_was_put_back_may_still_be_finished_by_who_held_it(store: ValkeyStore) -> None:
    """Until somebody else claims it, its claim is not old; then it no longer waits."""
    await begin(store, turn())
    claimed = await claim(store)
    await store.turns.release("eng-a")
    outcome = outcome_of(claimed)
    assert await store.turns.finish(claimed, outcome, closing(outcome, 2), {})
    assert await store.turns.waiting() == 0


@pytest.mark.parametrize("stored", [True, False])
async def test_what_has_ended_is_kept_for_a_while(store: ValkeyStore, client: Client, stored: bool) -> None:
    new = turn(stored=stored)
    ended = await answered(store, new, "x")
    key = keys.response(ended.id)
    assert 0 < await client.run(SHARD, ("TTL", key.tape)) <= RESPONSE_TTL
    ttl = await client.run(SHARD, ("TTL", key.fields))
    assert ttl == -1 if stored else 0 < ttl <= RESPONSE_TTL


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


# stop


async def test_a_waiting_job_is_cancelled_at_once(store: ValkeyStore) -> None:
    new = first_turn()
    await begin(store, new)
    stopped = await store.turns.stop(TENANT, new.response.id, NOW + 1)
    expected = Outcome(Status.CANCELLED, Finish.STOPPED, Usage(), completed_at=NOW + 1)
    assert (stopped.status, stopped.stop_asked, stopped.outcome) == (Status.CANCELLED, True, expected)
    assert await store.turns.stop(TENANT, new.response.id, NOW + 9) == stopped
    assert await store.turns.get(TENANT, new.response.id) == stopped
    assert (await store.tapes.read(new.response.id, 1)) == [Record(2, Ended(expected))]
    assert await store.turns.claim("eng-a", lease=30) is None
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


# get, delete


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
