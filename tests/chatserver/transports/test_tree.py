"""Conversations as trees over HTTP, and what is warm of them."""

from __future__ import annotations

import asyncio

from chatserver.ports.caches import CacheReport, Warm
from tests.chatserver.transports.test_websocket import receive, send, socket_to, until


async def conversation(web, http) -> str:
    answer = await http.post("/v1/conversations", json={"items": [{"role": "user", "content": "Hi"}]})
    return answer.json()["id"]


async def test_the_cache_is_told_by_the_coldest_engine(memory):
    """Any engine may take the next turn, so the least warm one counts; without engines nothing is known."""
    async with memory.http() as http:
        one = await conversation(memory, http)
        assert memory.store.reports
        memory.store.reports, announced = {}, dict(memory.store.reports)
        cold = (await http.get(f"/v1/conversations/{one}/cache")).json()
        assert (cold["object"], cold["state"], cold["warm_tokens"]) == ("conversation.cache", "unknown", None)
        memory.store.reports = announced
        memory.store.caches.reports = [
            CacheReport("eng_a", 100, 90, 1, "msg_x"),
            CacheReport("eng_b", 100, 0, 1, "msg_x"),
        ]
        known = (await http.get(f"/v1/conversations/{one}/cache")).json()
        assert (known["state"], known["prefix_tokens"], known["warm_tokens"]) == ("known", 100, 0)
        assert known["prefill_tokens"] == 100
        assert [engine["warm_tokens"] for engine in known["engines"]] == [90, 0]
        assert (await http.get("/v1/conversations/conv_x/cache")).status_code == 404


async def test_what_is_deleted_says_how_much_it_freed(memory):
    """The sum over the engines; null, and gone all the same, while none answers."""
    http = memory.http()
    async with asyncio.timeout(60):
        while (await http.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.01)
    one, other = [(await http.post("/v1/conversations", json={})).json()["id"] for _ in range(2)]
    memory.store.caches.tokens = [1200]
    closed = (await http.delete(f"/v1/conversations/{one}/cache")).json()
    assert closed == {"object": "conversation.cache.closed", "conversation_id": one, "freed_tokens": 1200}
    gone = (await http.delete(f"/v1/conversations/{one}")).json()
    assert gone == {"id": one, "object": "conversation.deleted", "deleted": True, "freed_tokens": 1200}
    assert [(c.conversation, c.everything) for c in memory.store.caches.heard[-2:]] == [
        (one, True),
        (one, False),
    ]
    assert (await http.delete(f"/v1/conversations/{one}/cache")).status_code == 404
    memory.store.reports = {}
    assert (await http.delete(f"/v1/conversations/{other}")).json()["freed_tokens"] is None


async def test_opening_and_typing_warm_up(memory):
    """Reading a conversation's items and `input.typing` tell the engines, once; bad ids are refused as usual."""
    async with memory.http() as http, socket_to(memory) as socket:
        one, other = await conversation(memory, http), await conversation(memory, http)
        await http.get(f"/v1/conversations/{one}/items")
        await http.get(f"/v1/conversations/{one}/items")
        for _ in range(3):
            await send(socket, type="input.typing", conversation_id=other)
        await send(socket, type="input.typing", conversation_id="conv_nobody")
        assert (await receive(socket))["status"] == 404
        await send(socket, type="response.create", input="Hi")
        await until(socket, "response.completed")
        assert memory.store.caches.heard == [Warm("local", one), Warm("local", other)]


async def answered(http, conversation, text: str) -> dict:
    answer = await http.post(
        "/v1/responses", json={"input": text, "conversation": conversation, "truncation": "auto"}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


async def items_of(http, one: str, **query) -> list[dict]:
    answer = await http.get(f"/v1/conversations/{one}/items", params={"limit": 100, **query})
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


async def test_branches_are_listed_chosen_and_removed(web):
    """An edit and a regeneration make siblings; all are listed, one is read by its leaf, one is removed."""
    async with web.http() as http:
        first = await answered(http, None, "One")
        one = first["conversation"]["id"]
        question = (await items_of(http, one, order="asc"))[0]["id"]
        again = await http.post(
            "/v1/responses", json={"conversation": {"id": one, "parent": question}, "input": []}
        )
        edited = await answered(http, {"id": one, "parent": None}, "One, edited")
        everything = await items_of(http, one, branches="all")
        assert len(everything) == 5
        assert [item["parent"] for item in everything[:2]] == [None, None]
        places = {item["id"]: place for place, item in enumerate(everything)}
        assert all(places[item["parent"]] < places[item["id"]] for item in everything if item["parent"])
        paged = await http.get(f"/v1/conversations/{one}/items", params={"branches": "all", "limit": 2})
        rest = await items_of(http, one, branches="all", after=paged.json()["last_id"])
        assert paged.json()["has_more"] and paged.json()["data"] + rest == everything

        regenerated = again.json()["output"][0]["id"]
        assert [i["id"] for i in await items_of(http, one, leaf=regenerated, order="asc")] == [
            question,
            regenerated,
        ]
        assert (await items_of(http, one))[0]["id"] == edited["output"][0]["id"]

        gone = await http.delete(f"/v1/conversations/{one}/items/{question}")
        assert gone.json()["head"] == edited["output"][0]["id"]
        assert len(await items_of(http, one, branches="all")) == 2
        last = await http.delete(f"/v1/conversations/{one}/items/{edited['output'][0]['id']}")
        assert last.json()["head"] == (await items_of(http, one))[0]["id"]
        assert (await answered(http, one, "Still there"))["status"] == "completed"


async def test_the_sdk_deletes_an_item(web):
    """`conversations.items.delete` answers with the conversation."""
    sdk = web.sdk()
    conversation = await sdk.conversations.create(items=[{"role": "user", "content": "Hi"}])
    page = await sdk.conversations.items.list(conversation.id)
    left = await sdk.conversations.items.delete(page.data[0].id, conversation_id=conversation.id)
    assert left.id == conversation.id
    assert not (await sdk.conversations.items.list(conversation.id)).data


async def test_a_fork_goes_on_by_itself(web):
    """It begins with the same items; what follows in one is not in the other."""
    async with web.http() as http:
        first = await answered(http, None, "One")
        one = first["conversation"]["id"]
        await answered(http, one, "Two")
        fork = (
            await http.post(
                f"/v1/conversations/{one}/fork",
                json={"leaf": first["output"][0]["id"], "metadata": {"from": one}},
            )
        ).json()
        assert (fork["head"], fork["metadata"]) == (first["output"][0]["id"], {"from": one})
        await answered(http, fork["id"], "Another two")
        assert len(await items_of(http, fork["id"])) == len(await items_of(http, one)) == 4
        whole = (await http.post(f"/v1/conversations/{one}/fork")).json()
        assert await items_of(http, whole["id"]) == await items_of(http, one)
        await http.delete(f"/v1/conversations/{one}")
        assert len(await items_of(http, whole["id"])) == 4


async def test_trees_refuse_what_is_not_theirs(web):
    """Unknown ids are 404, wrong queries 400."""
    async with web.http() as http:
        one = await conversation(web, http)
        item = (await items_of(http, one))[0]["id"]
        foreign = f"msg_{'0' * 32}"
        for method, path, status in (
            ("DELETE", f"{one}/items/{foreign}", 404),
            ("DELETE", f"{one}/items/x", 404),
            ("DELETE", f"conv_x/items/{item}", 404),
            ("GET", f"{one}/items?leaf={foreign}", 404),
            ("GET", f"{one}/items?leaf=x", 404),
            ("GET", f"{one}/items?branches=some", 400),
            ("GET", f"{one}/items?branches=all&order=desc", 400),
            ("GET", f"{one}/items?branches=all&leaf={item}", 400),
            ("POST", f"conv_{'0' * 32}/fork", 404),
        ):
            assert (await http.request(method, f"/v1/conversations/{path}")).status_code == status, path
        assert (await http.post(f"/v1/conversations/{one}/fork", json={"leaf": foreign})).status_code == 404
        assert (await http.post(f"/v1/conversations/{one}/fork", json={"leave": item})).status_code == 400
