"""`store: false` keeps nothing; idempotency keys attach while there is something to attach to."""

from __future__ import annotations

import asyncio
import json

import pytest

from chatserver.ports.turns import FLEETING_TTL
from tests.chatserver.transports.conftest import opened_store, running_web
from tests.chatserver.transports.keyed import bearer, new_key
from tests.chatserver.transports.reading import parse_sse

ANSWER = "".join(f"w{i} " for i in range(20))
ASK = {"model": "tiny", "input": "a very private question"}
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "a very private question"}]}


@pytest.fixture
async def stored():
    """A web role on a real store."""
    async with opened_store("valkey") as store, running_web(store) as web:
        while not await store.registry.models():
            await asyncio.sleep(0.005)
        yield web


async def everything(store) -> list[bytes]:
    """All that the store holds, but for what says which engines there are."""
    client, found = store.turns._client, []
    for shard in range(1):
        for name in await client.run(shard, ("KEYS", "*")):
            kind = await client.run(shard, ("TYPE", name))
            if kind == b"hash":
                found += await client.run(shard, ("HGETALL", name))
            elif kind == b"stream":
                found += [
                    part for _, pairs in await client.run(shard, ("XRANGE", name, "-", "+")) for part in pairs
                ]
            elif kind == b"string":
                found.append(await client.run(shard, ("GET", name)))
    return found


async def let_time_pass(store) -> None:
    """End at once what would end within the time that fleeting things have."""
    client, later = store.turns._client, 1000 * FLEETING_TTL
    for name in await client.run(0, ("KEYS", "*")):
        if 0 < await client.run(0, ("PTTL", name)) <= later:
            await client.run(0, ("DEL", name))


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/responses", ASK), ("/v1/chat/completions", CHAT)], ids=["responses", "chat"]
)
async def test_nothing_is_left_of_what_is_not_to_be_stored(stored, path, body):
    """Neither the question nor the answer, once its time is over; before that, readers may come back."""
    http = stored.http()
    told = await http.post(path, json=body | {"store": False})
    assert ANSWER in told.text
    kept = b"".join(await everything(stored.store))
    assert b"private" in kept and b"w19" in kept  # for its readers
    await let_time_pass(stored.store)
    kept = b"".join(await everything(stored.store))
    assert b"private" not in kept and b"w19" not in kept
    assert (await http.get(f"/v1/responses/{told.json()['id']}")).status_code == 404
    assert (await http.get("/v1/conversations")).json()["data"] == []


async def test_not_stored_is_not_continued_and_not_in_the_background(web):
    http = web.http()
    answer = (await http.post("/v1/responses", json=ASK | {"store": False})).json()
    assert answer["store"] is False and answer["conversation"] is None
    for more, param in (
        ({"previous_response_id": answer["id"]}, "previous_response_id"),
        ({"continue": answer["id"]}, "continue"),
    ):
        body = {"model": "tiny", **more} | ({"input": "and?"} if "continue" not in more else {})
        refused = await http.post("/v1/responses", json=body)
        assert refused.status_code == 404 and refused.json()["error"]["param"] == param
    background = await http.post("/v1/responses", json=ASK | {"store": False, "background": True})
    assert background.status_code == 400 and background.json()["error"]["param"] == "background"


def told(text: str) -> str:
    """The answer's text in what either dialect sent, whole or streamed (however its deltas were cut)."""
    if not text.lstrip().startswith("{"):
        events = [json.loads(event["data"]) for event in parse_sse(text) if event["data"] != "[DONE]"]
        deltas = [
            e.get("delta", "") if "type" in e else e["choices"][0]["delta"].get("content", "") for e in events
        ]
        return "".join(deltas)
    whole = json.loads(text)
    return (
        whole["choices"][0]["message"]["content"]
        if "choices" in whole
        else whole["output"][0]["content"][0]["text"]
    )


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body"), [("/v1/responses", ASK), ("/v1/chat/completions", CHAT)], ids=["responses", "chat"]
)
async def test_the_same_key_twice_is_one_generation(web, path, body, stream):
    """Also while the first is under way, when the client re-POSTs as it reconnects: all of the answer comes again."""
    web.engine.write.clear()
    http, headers = web.http(), {"Idempotency-Key": f"key {path} {stream}"}
    posts = [
        asyncio.create_task(http.post(path, json=body | {"stream": stream}, headers=headers))
        for _ in range(3)
    ]
    while not web.engine.started:
        await asyncio.sleep(0.005)
    web.engine.write.set()
    answers = [await post for post in posts]
    answers.append(await http.post(path, json=body | {"stream": stream}, headers=headers))
    assert len(web.engine.started) == 1
    assert {told(answer.text) for answer in answers} == {ANSWER}
    other = await http.post(path, json=body | {"stream": stream, "user": "x"}, headers=headers)
    assert other.status_code == 409 and other.json()["error"]["code"] == "idempotency_key_reused"


async def test_a_key_whose_answer_is_gone_generates_nothing_new(web):
    http, headers = web.http(), {"Idempotency-Key": "k"}
    answer = (await http.post("/v1/responses", json=ASK, headers=headers)).json()
    assert (await http.delete(f"/v1/responses/{answer['id']}")).json()["deleted"] is True
    again = await http.post("/v1/responses", json=ASK, headers=headers)
    assert again.status_code == 409 and again.json()["error"]["code"] == "idempotency_key_spent"
    assert len(web.engine.started) == 1


async def test_attaching_needs_no_second_place(stored):
    """A key that may have one answer at once: the re-POST of that one attaches, another one is refused."""
    token = await new_key(stored.store, concurrent=1)
    stored.engine.write.clear()
    http = stored.http(headers=bearer(token))
    first = asyncio.create_task(http.post("/v1/responses", json=ASK, headers={"Idempotency-Key": "k"}))
    while not stored.engine.started:
        await asyncio.sleep(0.005)
    second = asyncio.create_task(http.post("/v1/responses", json=ASK, headers={"Idempotency-Key": "k"}))
    assert (await http.post("/v1/responses", json=ASK)).status_code == 429
    assert (
        await http.post("/v1/responses", json=ASK, headers={"Idempotency-Key": "other"})
    ).status_code == 429
    await asyncio.sleep(0.1)
    stored.engine.write.set()
    assert (await first).json()["id"] == (await second).json()["id"] and len(stored.engine.started) == 1
