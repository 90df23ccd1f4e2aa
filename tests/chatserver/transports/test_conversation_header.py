"""`X-Conversation-Id`: a Chat Completion that is kept, can be resumed, and sees what it would see without."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.chatserver.service.engine_role import at_rest
from tests.chatserver.transports.engine_beside import web_and_engine
from tests.chatserver.transports.reading import parse_sse

CHAT = {"model": "scripted", "max_tokens": 20, "temperature": 0}
SYSTEM, HELLO = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello there"}


@pytest.fixture
async def whole():
    async with web_and_engine() as web:
        yield web


def texts(listed) -> list[str]:
    return [item["content"][0]["text"] for item in listed.json()["data"]]


async def test_turns_of_the_openai_sdk_become_a_conversation(whole):
    """The client sends its whole history each time, as ever; here it is kept, and comes from the cache."""
    sdk = whole.sdk(default_headers={"X-Conversation-Id": "new"})
    messages = [SYSTEM, HELLO]
    first = await sdk.chat.completions.with_raw_response.create(messages=messages, **CHAT)
    conversation = first.headers["x-conversation-id"]
    tied = whole.sdk(default_headers={"X-Conversation-Id": conversation})
    answer = first.parse()
    for turn in range(3):
        messages += [answer.choices[0].message, {"role": "user", "content": f"And {turn}?"}]
        answer = await tied.chat.completions.create(messages=messages, **CHAT)
        sent = [m["content"] if isinstance(m, dict) else m.content for m in messages]
        seen = await whole.http().get(f"/v1/responses/{answer.id}/input_items?order=asc&limit=100")
        assert texts(seen) == sent
        assert answer.usage.prompt_cache_hit_tokens >= answer.usage.prompt_tokens // 2
    listed = await whole.http().get(f"/v1/conversations/{conversation}/items?order=asc&limit=100")
    assert texts(listed) == [*sent, answer.choices[0].message.content]


async def test_an_edit_is_a_branch_and_a_repeat_regenerates(whole):
    """What the history leaves is kept beside it: nothing is overwritten."""
    http = whole.http()

    async def ask(*messages, conversation):
        body = CHAT | {"messages": list(messages)}
        return await http.post("/v1/chat/completions", json=body, headers={"X-Conversation-Id": conversation})

    first = await ask(SYSTEM, HELLO, conversation="new")
    conversation = first.headers["x-conversation-id"]
    items = f"/v1/conversations/{conversation}/items?order=asc"
    await ask(SYSTEM, HELLO, conversation=conversation)  # regenerated
    assert len(texts(await http.get(items))) == 3
    await ask(SYSTEM, {"role": "user", "content": "Hello, edited"}, conversation=conversation)
    assert texts(await http.get(items))[1] == "Hello, edited"
    assert len(texts(await http.get(f"{items}&branches=all"))) == 6
    other = await ask({"role": "user", "content": "Something else"}, conversation=conversation)
    assert other.status_code == 200 and texts(await http.get(items))[0] == "Something else"
    streamed = CHAT | {"messages": [HELLO], "stream": True, "n": 2}
    answer = await http.post("/v1/chat/completions", json=streamed, headers={"X-Conversation-Id": "new"})
    assert answer.headers["x-conversation-id"].startswith("conv_") and "[DONE]" in answer.text


async def test_progress_of_the_prompt(whole):
    """Only for who asks: none of it at the start, then all of it, before the first word; an exact count of hits."""
    http, chunks = whole.http(), []
    ask = CHAT | {"messages": [SYSTEM, HELLO], "stream": True, "stream_options": {"include_usage": True}}
    for more in ({}, {"return_progress": True}, {"return_progress": True, "n": 2}):
        answer = await http.post("/v1/chat/completions", json=ask | more)
        chunks = [json.loads(e["data"]) for e in parse_sse(answer.text) if e["data"] != "[DONE]"]
        told = [chunk["prompt_progress"] for chunk in chunks if "prompt_progress" in chunk]
        assert len(told) == (2 if more else 0)
        assert all(chunk["choices"] == [] for chunk in chunks if "prompt_progress" in chunk)
    usage, (first, last) = chunks[-1]["usage"], told
    assert first == {"total": usage["prompt_tokens"], "cache": 0, "processed": 0, "time_ms": 0.0}
    assert last["processed"] == last["total"] == usage["prompt_tokens"] and last["time_ms"] > 0
    assert last["cache"] == usage["prompt_cache_hit_tokens"] > 0
    sdk = whole.sdk()
    stream = await sdk.chat.completions.create(
        model="scripted", messages=[HELLO], stream=True, max_tokens=20, extra_body={"return_progress": True}
    )
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
    refused = await http.post("/v1/chat/completions", json=ask | {"stream": False, "return_progress": True})
    assert refused.status_code == 400


async def test_it_can_be_resumed_and_continued(whole):
    """By its id at /v1/responses, like any other answer; also as `previous_response_id`."""
    http = whole.http()
    body = CHAT | {"messages": [HELLO], "stream": True}
    answer = await http.post("/v1/chat/completions", json=body, headers={"X-Conversation-Id": "new"})
    name = parse_sse(answer.text)[0]["data"].split('"id":"')[1].split('"')[0]
    resumed = parse_sse((await http.get(f"/v1/responses/{name}?stream=true&starting_after=2")).text)
    assert resumed[-1]["event"] == "response.completed" or resumed[-1]["event"] == "response.incomplete"
    more = await http.post(
        "/v1/responses", json={"input": "And then?", "previous_response_id": name, "max_output_tokens": 5}
    )
    assert more.json()["conversation"]["id"] == answer.headers["x-conversation-id"]


async def test_mistakes_are_named(web):
    http = web.http()
    chat = {"model": "tiny", "messages": [HELLO]}
    for value, more, status, param in (
        ("conv_x", {}, 404, "X-Conversation-Id"),
        ("", {}, 400, "X-Conversation-Id"),
        ("x" * 200, {}, 400, "X-Conversation-Id"),
        ("new", {"store": False}, 400, "store"),
    ):
        refused = await http.post(
            "/v1/chat/completions", json=chat | more, headers={"X-Conversation-Id": value}
        )
        assert (refused.status_code, refused.json()["error"]["param"]) == (status, param)
    web.engine.write.clear()
    first = asyncio.create_task(
        http.post("/v1/chat/completions", json=chat | {"stream": True}, headers={"X-Conversation-Id": "new"})
    )
    while not (listed := (await http.get("/v1/conversations")).json()["data"]):
        await asyncio.sleep(0.01)
    grown = chat | {"messages": [HELLO, {"role": "user", "content": "And?"}]}
    busy = await http.post("/v1/chat/completions", json=grown, headers={"X-Conversation-Id": listed[0]["id"]})
    assert busy.status_code == 409
    web.engine.write.set()
    await first


async def test_what_a_long_history_drops_is_summarised():
    """The client goes on sending all of it; what a cut dropped is in the summary, which no answer waits for."""
    compacting = {"type": "auto", "compaction": True}
    async with web_and_engine({"context": 700}) as web:
        http = web.http()
        body = CHAT | {"messages": [SYSTEM], "truncation": compacting, "ignore_eos": True}
        refused = await http.post("/v1/chat/completions", json=body)
        assert refused.json()["error"]["param"] == "truncation.compaction"
        conversation, seen = "new", {}
        for turn in range(30):
            body["messages"].append({"role": "user", "content": f"Word {turn} " + "x " * 20})
            answer = await http.post(
                "/v1/chat/completions", json=body, headers={"X-Conversation-Id": conversation}
            )
            assert answer.status_code == 200, answer.text
            conversation = answer.headers["x-conversation-id"]
            body["messages"].append(answer.json()["choices"][0]["message"])
            seen = (await http.get(f"/v1/responses/{answer.json()['id']}")).json()
            if seen["context"]["summary"]:
                break
            await at_rest(web.worker)
        context = seen["context"]
        assert context["summary"]["tokens"] > 10 and context["cut"]
        assert len(context["kept"]) + len(context["dropped"]) == len(body["messages"]) - 1
        assert seen["usage"]["input_tokens"] <= 700
        items = await http.get(f"/v1/conversations/{conversation}/items?branches=all&order=asc&limit=100")
        summaries = {item["id"]: item for item in items.json()["data"] if item["type"] == "compaction"}
        assert summaries[context["summary"]["item"]]["usage"]["output_tokens"] > 0
