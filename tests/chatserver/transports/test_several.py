"""Several answers to one request, and going on with one: through the official SDK and on the socket."""

from __future__ import annotations

import asyncio

import pytest
from openai import BadRequestError

from tests.chatserver.transports.test_websocket import receive, send, socket_to, until

HELLO = [{"role": "user", "content": "Hi"}]
WHOLE = "".join(f"w{i} " for i in range(20))


async def test_chat_completions_answer_n_times(web):
    """`n` choices under one id; the prompt counts once, the answers add up."""
    sdk = web.sdk()
    found = await sdk.chat.completions.create(model="tiny", messages=HELLO, n=3)
    assert [choice.index for choice in found.choices] == [0, 1, 2]
    assert {choice.message.content for choice in found.choices} == {WHOLE}
    assert found.usage.completion_tokens == 60
    assert found.usage.total_tokens == found.usage.prompt_tokens + 60


async def test_chat_completions_stream_n_choices(web):
    """Chunks of all choices on one stream, one finish each, usage once, and the end once."""
    sdk = web.sdk()
    web.engine.pause = 0.002
    texts, finishes, usages, ids = ["", ""], [], [], set()
    stream = await sdk.chat.completions.create(
        model="tiny", messages=HELLO, n=2, stream=True, stream_options={"include_usage": True}
    )
    async for chunk in stream:
        ids.add(chunk.id)
        if chunk.usage:
            usages.append(chunk.usage.completion_tokens)
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                finishes.append((choice.index, choice.finish_reason))
    assert texts == [WHOLE, WHOLE]
    assert sorted(finishes) == [(0, "stop"), (1, "stop")]
    assert (usages, len(ids)) == ([40], 1)


async def test_a_failure_ends_all_choices(web):
    """A refused prompt is an HTTP error; a lost engine ends the stream with one error line and nothing behind."""
    sdk = web.sdk()
    with pytest.raises(BadRequestError):
        await sdk.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "REFUSE"}], n=2)
    async with web.http() as http:
        asked = {"model": "tiny", "messages": [{"role": "user", "content": "FAIL"}], "n": 2, "stream": True}
        answer = await http.post("/v1/chat/completions", json=asked)
        lines = [line for line in answer.text.split("\n\n") if line.startswith("data: ")]
        assert '"error"' in lines[-1] and "[DONE]" not in answer.text
        assert sum('"error"' in line for line in lines) == 1


async def test_responses_answer_n_times(web):
    """The first is the answer, the others are named on it and read by their ids."""
    sdk = web.sdk()
    first = await sdk.responses.create(model="tiny", input="Hi", extra_body={"n": 3})
    assert first.output_text == WHOLE and len(first.siblings) == 2
    for sibling in first.siblings:
        events = [event async for event in await sdk.responses.retrieve(sibling, stream=True)]
        other = events[-1].response
        assert (other.output_text, other.beside) == (WHOLE, first.id)
        assert other.output[0].id != first.output[0].id
    conversation = first.conversation.id
    async with web.http() as http:
        page = await http.get(f"/v1/conversations/{conversation}/items", params={"branches": "all"})
        answers = [item for item in page.json()["data"] if item["role"] == "assistant"]
        assert len(answers) == 3 and len({item["parent"] for item in answers}) == 1
        one = await http.get(f"/v1/conversations/{conversation}")
        assert one.json()["head"] == first.output[0].id
        refused = await http.post("/v1/responses", json={"input": "Hi", "n": 2, "store": False})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "n")


async def test_an_answer_goes_on_over_http(web):
    """`continue` gives one answer with the whole text, beside the part that stays."""
    sdk = web.sdk()
    part = await sdk.responses.create(model="tiny", input="Hi", max_output_tokens=5)
    assert part.status == "incomplete"
    whole = await sdk.responses.create(extra_body={"continue": part.id, "max_output_tokens": 50})
    assert (whole.status, whole.output_text) == ("completed", WHOLE)
    assert whole.output_text.startswith(part.output_text)
    assert (whole.continues, whole.conversation.id) == (part.output[0].id, part.conversation.id)
    with pytest.raises(BadRequestError, match="stopped or cut off"):
        await sdk.responses.create(extra_body={"continue": whole.id})
    streamed = await sdk.responses.create(
        stream=True, extra_body={"continue": part.id, "max_output_tokens": 50}
    )
    text = "".join([e.delta async for e in streamed if e.type == "response.output_text.delta"])
    assert text == WHOLE
    items = (await sdk.conversations.items.list(part.conversation.id)).data
    assert len(items) == 2  # the question, and the newest of three answers


async def test_an_answer_goes_on_over_the_socket(web):
    """Stopped on the socket, it goes on there: the new answer begins with what was kept."""
    web.engine.write.clear()
    async with socket_to(web) as socket:
        await send(socket, type="response.create", input="Hi")
        begun = await receive(socket)
        first = begun["response"]["id"]
        await until(socket, "response.output_text.delta")
        await send(socket, type="response.cancel", response_id=first)
        while not (await web.store.turns.get("local", first)).stop_asked:
            await asyncio.sleep(0.005)
        web.engine.write.set()
        stopped = (await until(socket, "response.incomplete"))[-1]["response"]
        kept = stopped["output"][0]["content"][0]["text"]
        assert kept and kept != WHOLE
        await send(socket, **{"type": "response.create", "continue": first})
        events = await until(socket, "response.completed")
        assert "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta") == WHOLE
        assert WHOLE.startswith(kept)
