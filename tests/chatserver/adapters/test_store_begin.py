"""The contract of the port `Turns`: how a turn begins."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from chatserver.adapters.valkey import ValkeyStore, conversations, turn_steps
from chatserver.errors import Conflict, NotFound, Overloaded
from chatserver.ports.turns import Begun
from tests.chatserver.adapters.things import (
    NO_ID,
    NOW,
    SHARD,
    TENANT,
    answer_it,
    answered,
    begin,
    first_turn,
    message,
    name,
    texts,
    turn,
)


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
    monkeypatch.setattr(turn_steps, "MAX_BRANCH", 3)
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
