"""What a tool gave needs its call in what it continues; without one nothing is asked, and nothing is kept."""

from __future__ import annotations

import asyncio

import pytest
from openai import BadRequestError, ConflictError

from chatserver.domain.item import Item, Part, PartKind, Role
from tests.chatserver.transports.test_forms import TOOLS, client_of
from tests.chatserver.transports.test_forms_on_websocket import answer

ASK = {"model": "scripted"}


def output(call_id: str) -> dict:
    return {"type": "function_call_output", "call_id": call_id, "output": "2"}


def call(call_id: str) -> dict:
    return {"type": "function_call", "call_id": call_id, "name": "add", "arguments": "{}"}


@pytest.fixture
async def called():
    """The SDK, and an answer with a call."""
    async with client_of() as sdk:
        yield sdk, await sdk.responses.create(model="scripted", input="Use add", tools=TOOLS)


async def refused(asking, field: str) -> None:
    with pytest.raises(BadRequestError) as refusal:
        await asking
    assert refusal.value.param == field and "no tool call found" in str(refusal.value)


async def everything(sdk, conversation: str) -> list[str]:
    """All items of a conversation, and where it ends."""
    pages = sdk.conversations.items.list(conversation, extra_query={"branches": "all"})
    found = await sdk.conversations.retrieve(conversation)
    return [*[item.id async for item in pages], found.head, found.active]


async def test_an_output_without_a_call_is_refused_and_leaves_nothing(called):
    """At every door, on every way to continue; the field is named, and what was there goes on as if nothing was."""
    sdk, first = called
    name, call_id = first.conversation.id, first.output[0].call_id
    before = await everything(sdk, name)
    bad = [output(call_id), output("call_of_nobody")]
    for way, field in (
        ({"conversation": name}, "input[1].call_id"),
        ({"conversation": {"id": name, "parent": first.output[0].id}}, "input[1].call_id"),
        ({"conversation": {"id": name, "parent": None}}, "input[0].call_id"),
        ({"previous_response_id": first.id}, "input[1].call_id"),
    ):
        await refused(sdk.responses.create(**ASK, input=bad, **way), field)
        await refused(sdk.responses.input_tokens.count(**ASK, input=bad, **way), field)
        async with sdk.responses.connect() as connection:
            await connection.response.create(**ASK, input=bad, **way)
            event = await connection.recv()
        assert event.type == "error" and event.status == 400 and event.error.param == field
    await refused(
        sdk.responses.create(**ASK, input=bad, previous_response_id=first.id, store=False), "input[1].call_id"
    )
    await refused(sdk.conversations.items.create(name, items=bad), "items[1].call_id")
    assert await everything(sdk, name) == before
    last = await sdk.responses.create(**ASK, conversation=name, input=bad[:1])
    assert last.output_text
    empty = await sdk.conversations.create()
    await refused(sdk.responses.create(**ASK, conversation=empty.id, input=bad), "input[0].call_id")
    assert await everything(sdk, empty.id) == [None, None]


async def test_calls_anywhere_above_are_answered(called):
    """Not only in the last answer: further up, item by item, in the same request; but not on another branch."""
    sdk, first = called
    name, call_id = first.conversation.id, first.output[0].call_id
    await sdk.conversations.items.create(name, items=[{"role": "user", "content": "Wait."}, call("own")])
    await sdk.conversations.items.create(name, items=[output(call_id)])
    await sdk.conversations.items.create(name, items=[output("own")])
    both = [call("new"), output("new"), output("own"), {"role": "user", "content": "And?"}]
    answered = await sdk.responses.create(**ASK, conversation=name, input=both)
    assert answered.output_text
    async with sdk.responses.connect() as connection:
        after = await answer(connection, previous_response_id=answered.id, input=[output(call_id)])
    assert after[-1].response.output_text
    await refused(
        sdk.responses.create(**ASK, previous_response_id=first.id, input=[output("new")]), "input[0].call_id"
    )


async def test_a_call_that_is_still_being_written_may_be_answered_later(memory):
    """Beside a running turn it is a 409 that says to come again, which clients do by themselves, not a 400."""
    memory.engine.write.clear()
    sdk = memory.sdk()
    running = await sdk.responses.create(model="tiny", input="Hi", background=True)
    name = running.conversation.id
    for ask in (
        sdk.responses.create(model="tiny", conversation=name, input=[output("later")]),
        sdk.conversations.items.create(name, items=[output("later")]),
    ):
        with pytest.raises(ConflictError) as busy:
            await ask
        assert busy.value.code == "conversation_busy" and busy.value.response.headers["retry-after"] == "1"
    memory.engine.write.set()
    while (await sdk.responses.retrieve(running.id)).status != "completed":
        await asyncio.sleep(0.005)
    await refused(
        sdk.responses.create(model="tiny", conversation=name, input=[output("later")]), "input[0].call_id"
    )


async def test_a_head_that_moves_meanwhile_is_asked_again(memory, monkeypatch):
    """The call comes between the look at the head and the look at the branch: nobody is told that it is not there."""
    sdk = memory.sdk()
    conversation = await sdk.conversations.create(items=[{"role": "user", "content": "Hi"}])
    look = memory.store.conversations.some

    async def late(tenant, conversation_id, item_ids):
        found = await look(tenant, conversation_id, item_ids)
        monkeypatch.setattr(memory.store.conversations, "some", look)
        part = Part(PartKind.CALL, "{}", "late", "add")
        item = Item("msg_late", item_ids[0], Role.ASSISTANT, "", parts=(part,))
        await memory.store.conversations.append(tenant, conversation_id, [item], 1)
        return found

    monkeypatch.setattr(memory.store.conversations, "some", late)
    with pytest.raises(ConflictError):
        await sdk.conversations.items.create(conversation.id, items=[output("late")])
    added = await sdk.conversations.items.create(conversation.id, items=[output("late")])
    assert added.data[0].type == "function_call_output"
