"""The contract of the port `Conversations`."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from chatserver.adapters.valkey import ValkeyStore, conversations, keys
from chatserver.adapters.valkey.client import Client
from chatserver.domain.ids import SHARDS
from chatserver.domain.item import Item, Role, StoredItem
from chatserver.domain.response import Status
from chatserver.errors import BadRequest, Conflict, NotFound
from chatserver.ports.conversations import MAX_BRANCH
from tests.chatserver.adapters.things import (
    BOUND,
    NO_ID,
    NOW,
    SHARD,
    TENANT,
    answered,
    conversation,
    first_turn,
    message,
    name,
    turn,
)


async def test_what_was_created_is_found(store: ValkeyStore) -> None:
    """Items are chained in their order and the last one is the head."""
    new = replace(conversation(), title="Überschrift", metadata={"a": "b"})
    first, second = message("one"), message("two", Role.ASSISTANT)
    await store.conversations.create(new, (first, second))
    await store.conversations.create(new, (first, second))  # its answer was lost
    found = await store.conversations.get(TENANT, new.id)
    assert found == replace(new, head=second.id)
    branch = await store.conversations.branch(TENANT, new.id, found.head, with_ids=True)
    assert branch == [StoredItem(first), StoredItem(replace(second, parent=first.id))]


async def test_a_conversation_may_be_empty(store: ValkeyStore) -> None:
    new = conversation()
    await store.conversations.create(new)
    assert (await store.conversations.get(TENANT, new.id)).head is None
    assert await store.conversations.branch(TENANT, new.id, None, with_ids=True) == []


@pytest.mark.parametrize("unknown", [f"conv_03{NO_ID}", f"resp_03{NO_ID}", f"conv_ff{NO_ID}", "", "x" * 500])
async def test_unknown_is_not_found(store: ValkeyStore, unknown: str) -> None:
    await _assert_not_found(store, TENANT, unknown)


async def test_foreign_is_not_found(store: ValkeyStore) -> None:
    new = conversation("other")
    await store.conversations.create(new, (message(),))
    await _assert_not_found(store, TENANT, new.id)
    with pytest.raises(Conflict):
        await store.conversations.create(replace(new, tenant=TENANT))
    assert (await store.conversations.get("other", new.id)).tenant == "other"
    assert await store.conversations.list(TENANT, limit=5) == []


async def _assert_not_found(store: ValkeyStore, tenant: str, unknown: str) -> None:
    port = store.conversations
    with pytest.raises(NotFound):
        await port.get(tenant, unknown)
    with pytest.raises(NotFound):
        await port.update(tenant, unknown, title="x", now=NOW)
    with pytest.raises(NotFound):
        await port.delete(tenant, unknown)
    with pytest.raises(NotFound):
        await port.append(tenant, unknown, (message(),), NOW)
    with pytest.raises(NotFound):
        await port.append(tenant, unknown, (), NOW)
    with pytest.raises(NotFound):
        await port.branch(tenant, unknown, None, with_ids=False)
    with pytest.raises(NotFound):
        await port.list(tenant, limit=5, after=unknown)


async def test_update_changes_what_is_given(store: ValkeyStore) -> None:
    new = replace(conversation(), title="old", metadata={"a": "b"})
    await store.conversations.create(new)
    assert await store.conversations.update(TENANT, new.id, title="new", now=NOW + 1) == replace(
        new, title="new", updated_at=NOW + 1
    )
    changed = await store.conversations.update(TENANT, new.id, metadata={}, now=NOW + 2)
    assert changed == replace(new, title="new", metadata={}, updated_at=NOW + 2)
    assert await store.conversations.get(TENANT, new.id) == changed


async def test_text_that_cannot_be_stored_is_the_clients_error(store: ValkeyStore) -> None:
    new = conversation()
    await store.conversations.create(new)
    with pytest.raises(BadRequest):
        await store.conversations.update(TENANT, new.id, title="\ud800", now=NOW)
    with pytest.raises(BadRequest):
        await store.conversations.append(TENANT, new.id, (message("\ud800"),), NOW)


async def test_append_goes_under_the_head(store: ValkeyStore) -> None:
    new = conversation()
    first, second, third = message("1"), message("2"), message("3")
    await store.conversations.create(new, (first,))
    after = await store.conversations.append(TENANT, new.id, (second, third), NOW + 9)
    assert (after.head, after.updated_at) == (third.id, NOW + 9)
    assert await store.conversations.append(TENANT, new.id, (second, third), NOW + 9) == after  # sent again
    branch = await store.conversations.branch(TENANT, new.id, third.id, with_ids=False)
    assert [stored.item.text for stored in branch] == ["1", "2", "3"]
    with pytest.raises(Conflict):
        await store.conversations.append(TENANT, new.id, (message(), first), NOW)
    with pytest.raises(NotFound):
        await store.conversations.branch(TENANT, new.id, name("msg"), with_ids=False)


async def test_while_a_turn_runs_nothing_is_appended_or_deleted(store: ValkeyStore) -> None:
    new = first_turn()
    conversation_id = new.response.conversation
    assert conversation_id
    await store.turns.begin(new, queue_bound=BOUND)
    with pytest.raises(Conflict):
        await store.conversations.append(TENANT, conversation_id, (message(),), NOW)
    with pytest.raises(Conflict):
        await store.conversations.delete(TENANT, conversation_id)
    stopped = await store.turns.stop(TENANT, new.response.id, NOW)
    assert stopped.status is Status.CANCELLED
    await store.conversations.append(TENANT, conversation_id, (message(),), NOW)


async def test_delete_removes_everything(store: ValkeyStore, client: Client) -> None:
    """Items, ids, responses and tapes go; nothing of the conversation is left in the store."""
    new = first_turn()
    conversation_id = new.response.conversation
    assert conversation_id
    await answered(store, new)
    head = new.response.item_id
    for _ in range(3):
        following = turn(conversation_id, parent=head)
        await answered(store, following)
        head = following.response.item_id
    await store.conversations.delete(TENANT, conversation_id)
    await _assert_not_found(store, TENANT, conversation_id)
    with pytest.raises(NotFound):
        await store.turns.get(TENANT, new.response.id)
    with pytest.raises(NotFound):
        await store.tapes.read(new.response.id, -1)
    assert await store.conversations.list(TENANT, limit=5) == []
    assert await client.run(SHARD, ("KEYS", "*")) == [keys.queue(SHARD).next.encode()]


async def test_a_deletion_that_was_cut_off_is_finished_by_another(
    store: ValkeyStore, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its first step the conversation is unknown to all, and a second delete removes the rest."""
    monkeypatch.setattr(conversations, "DELETE_STEP", 1)
    new = first_turn()
    conversation_id = new.response.conversation
    assert conversation_id
    await answered(store, new)
    await answered(store, turn(conversation_id, parent=new.response.item_id))
    steps = 0
    run = client.run

    async def cut_off(*args: object, **options: object) -> object:
        nonlocal steps
        steps += 1
        if steps > 1:
            raise ConnectionError
        return await run(*args, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as broken, pytest.raises(ConnectionError):
        broken.setattr(client, "run", cut_off)
        await store.conversations.delete(TENANT, conversation_id)
    with pytest.raises(NotFound):
        await store.conversations.get(TENANT, conversation_id)
    with pytest.raises(NotFound):
        await store.turns.begin(turn(conversation_id), queue_bound=BOUND)
    with pytest.raises(NotFound):
        await store.conversations.delete("other", conversation_id)
    await store.conversations.delete(TENANT, conversation_id)
    assert await client.run(SHARD, ("KEYS", "*")) == [keys.queue(SHARD).next.encode()]


@pytest.mark.parametrize("newest_first", [True, False])
async def test_list_pages_through_all_shards(store: ValkeyStore, newest_first: bool) -> None:
    """Every conversation once, in order of change; equal times do not confuse the pages."""
    made = [conversation(shard=i % SHARDS, at=NOW + i // 40) for i in range(100)]
    for new in made:
        await store.conversations.create(new)
    await store.conversations.create(conversation("other"))
    expected = sorted(made, key=lambda c: (c.updated_at, c.id), reverse=newest_first)
    found, after = [], None
    while page := await store.conversations.list(TENANT, limit=7, after=after, newest_first=newest_first):
        assert len(page) <= 7
        found += page
        after = page[-1].id
    assert found == expected
    await store.conversations.update(TENANT, expected[-1].id, title="x", now=NOW + 100)
    assert (await store.conversations.list(TENANT, limit=1))[0].id == expected[-1].id


async def test_a_branch_holds_at_most_max_branch(store: ValkeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "MAX_BRANCH", 3)
    new = conversation()
    with pytest.raises(Conflict):
        await store.conversations.create(new, [message() for _ in range(4)])
    await store.conversations.create(new, [message() for _ in range(2)])
    with pytest.raises(Conflict):
        await store.conversations.append(TENANT, new.id, (message(), message()), NOW)
    await store.conversations.append(TENANT, new.id, (message(),), NOW)
    with pytest.raises(Conflict):
        await store.conversations.append(TENANT, new.id, (message(),), NOW)


async def test_ten_thousand_items_are_read_in_milliseconds(store: ValkeyStore, client: Client) -> None:
    """The longest branch comes whole and fast, with its ids. Other work on the machine does not count."""
    new = conversation()
    items = [Item(name("msg"), None, Role.USER, f"message {i} " * 4) for i in range(MAX_BRANCH)]
    await store.conversations.create(new, items)
    last = await store.conversations.get(TENANT, new.id)
    packed = conversations.packing.encode_ids(range(30), "template")
    pairs = [part for item in items for part in (item.id, packed)]
    await client.run(SHARD, ("HSET", keys.conversation(new.id).ids, *pairs))
    with pytest.raises(Conflict):
        await store.conversations.append(TENANT, new.id, (message(),), NOW)
    took, branch = [], []
    for _ in range(5):
        start = time.process_time(), time.perf_counter()
        branch = await store.conversations.branch(TENANT, new.id, last.head, with_ids=True)
        took.append((time.process_time() - start[0], time.perf_counter() - start[1]))
    best, wall = (min(times) for times in zip(*took, strict=True))
    assert [stored.item.id for stored in branch] == [item.id for item in items]
    assert branch[7].ids == tuple(range(30))
    assert branch[7].item.parent == items[6].id
    print(
        f"branch of {MAX_BRANCH} items with ids: {wall * 1000:.1f} ms, {best * 1000:.1f} ms of this process"
    )
    assert best < 0.15
