"""A conversation told as it changes, and which branch of it is read: what keeps two tabs in step."""

from __future__ import annotations

import asyncio

from tests.chatserver.transports.test_tree import answered, items_of
from tests.chatserver.transports.test_websocket import receive, send, socket_to, until


async def changed(socket, **wanted) -> dict:
    """The first change after which the conversation's fields are as wanted."""
    while True:
        event = await receive(socket)
        assert event["type"] == "conversation.changed", event
        if all(event["conversation"][name] == value for name, value in wanted.items()):
            return event


async def test_a_subscriber_is_told_of_every_change(web):
    """Now, when an answer begins and ends, when the title changes, when an item goes, when all of it goes."""
    async with web.http() as http, socket_to(web) as socket:
        first = await answered(http, None, "One")
        one, answer = first["conversation"]["id"], first["output"][0]["id"]
        await send(socket, type="conversation.subscribe", conversation_id=one, stream_id="f")
        now = await receive(socket)
        assert (now["type"], now["stream_id"]) == ("conversation.changed", "f")
        assert (now["conversation"]["head"], now["conversation"]["running"]) == (answer, [])

        web.engine.write.clear()
        asking = asyncio.create_task(answered(http, one, "Two"))
        while not (running := (await changed(socket))["conversation"]["running"]):
            pass
        (told,) = running
        web.engine.write.set()
        second = await asking
        assert told == {
            "response_id": second["id"],
            "item_id": second["output"][0]["id"],
            "parent": second["parent"],
        }
        await changed(socket, head=told["item_id"], running=[], active=None)
        await http.post(f"/v1/conversations/{one}", json={"title": "Named"})
        await changed(socket, title="Named")
        await http.delete(f"/v1/conversations/{one}/items/{second['parent']}")
        await changed(socket, head=answer)
        await http.delete(f"/v1/conversations/{one}")
        gone = {"type": "conversation.deleted", "conversation_id": one, "stream_id": "f"}
        assert await receive(socket) == gone


async def test_only_ones_own_and_until_unsubscribed(web):
    """Unknown is 404 in its lane; subscribed twice is told anew but once a change; unsubscribed is quiet."""
    async with web.http() as http, socket_to(web) as socket:
        one = (await http.post("/v1/conversations", json={})).json()["id"]
        for unknown in ("conv_x", f"conv_{'0' * 32}"):
            await send(socket, type="conversation.subscribe", conversation_id=unknown, stream_id="x")
            refused = await receive(socket)
            assert (refused["status"], refused["stream_id"]) == (404, "x")
        await send(socket, type="conversation.subscribe")
        assert (await receive(socket))["error"]["param"] == "conversation_id"
        for lane in ("a", "b"):
            await send(socket, type="conversation.subscribe", conversation_id=one, stream_id=lane)
            assert (await receive(socket))["stream_id"] == lane
        await http.post(f"/v1/conversations/{one}", json={"title": "Named"})
        assert (await changed(socket, title="Named"))["stream_id"] == "b"
        await send(socket, type="conversation.unsubscribe", conversation_id=one)
        await http.post(f"/v1/conversations/{one}", json={"title": "Again"})
        await send(socket, type="response.create", model="tiny", input="Hi")
        events = await until(socket, "response.completed")
        assert all(event["type"] != "conversation.changed" for event in events)


async def test_a_lost_subscription_is_caught_up_with(memory):
    """What changed while this process could not listen is told once it can again."""
    async with memory.http() as http, socket_to(memory) as socket:
        one = (await http.post("/v1/conversations", json={})).json()["id"]
        await send(socket, type="conversation.subscribe", conversation_id=one)
        await changed(socket)
        found = memory.store.all_conversations[one]
        memory.store.cut_subscriptions()
        memory.store.all_conversations[one] = type(found)(one, found.tenant, found.created_at, title="Missed")
        await changed(socket, title="Missed")


async def test_branches_and_siblings(web):
    """A list says what stands beside each item, and goes through any item to the end of its branch."""
    async with web.http() as http:
        first = await answered(http, None, "One")
        one, answer = first["conversation"]["id"], first["output"][0]["id"]
        question = first["parent"]
        assert [i["siblings"] for i in await items_of(http, one, siblings="true", order="asc")] == [
            [question],
            [answer],
        ]
        second = await answered(http, one, "Two")
        regenerate = {"conversation": {"id": one, "parent": question}, "input": []}
        again = (await http.post("/v1/responses", json=regenerate)).json()["output"][0]["id"]
        assert (await items_of(http, one))[0]["id"] == again
        listed = await items_of(http, one, siblings="true", order="asc")
        assert [i["siblings"] for i in listed] == [
            [question],
            sorted([answer, again], key=listed[1]["siblings"].index),
        ]
        assert set(listed[1]["siblings"]) == {answer, again}
        at_question = await items_of(http, one, siblings="true", leaf=question)
        assert [(i["id"], set(i["children"])) for i in at_question] == [(question, {answer, again})]
        for through in (answer, second["parent"], second["output"][0]["id"]):
            branch = await items_of(http, one, through=through, order="asc")
            assert [i["id"] for i in branch] == [
                question,
                answer,
                second["parent"],
                second["output"][0]["id"],
            ]
        for through in (question, again):
            assert (await items_of(http, one, through=through))[0]["id"] == again
        assert "siblings" not in (await items_of(http, one))[0]
        for query, status in (
            ({"through": f"msg_{'0' * 32}"}, 404),
            ({"through": "x"}, 404),
            ({"through": answer, "leaf": answer}, 400),
            ({"siblings": "yes"}, 400),
            ({"branches": "all", "siblings": "true"}, 400),
            ({"branches": "all", "through": answer}, 400),
        ):
            refused = await http.get(f"/v1/conversations/{one}/items", params=query)
            assert refused.status_code == status, query
