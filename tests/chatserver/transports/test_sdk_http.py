"""The official SDK over HTTP: what its users do must work unchanged."""

from __future__ import annotations

import asyncio

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response

ANSWER = "".join(f"w{i} " for i in range(20))
ORDER = [
    "response.created",
    "response.queued",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]
ASK = {"model": "tiny", "input": "Hello"}
CHAT = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Hello"}]}


def strict(response: Response) -> Response:
    return Response.model_validate(response.to_dict(), strict=True)


async def test_chat_completion(web):
    whole = await web.sdk().chat.completions.create(**CHAT)
    ChatCompletion.model_validate(whole.to_dict(), strict=True)
    assert whole.choices[0].message.content == ANSWER
    assert whole.choices[0].finish_reason == "stop"
    assert whole.model == "tiny"
    usage = whole.usage.to_dict()
    assert usage["prompt_tokens"] == 5 and usage["completion_tokens"] == 20 and usage["total_tokens"] == 25
    assert usage["prompt_cache_hit_tokens"] + usage["prompt_cache_miss_tokens"] == 5
    assert usage["prompt_tokens_details"] == {"cached_tokens": 2, "cache_write_tokens": 3}


async def test_chat_completion_stream(web):
    stream = await web.sdk().chat.completions.create(
        **CHAT, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk.to_dict(), strict=True)
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1
    *deltas, last = chunks
    assert last.choices == [] and last.usage.completion_tokens == 20
    assert all("usage" in chunk.to_dict() and chunk.usage is None for chunk in deltas)
    assert [chunk.choices[0].delta.role for chunk in deltas] == ["assistant", *[None] * (len(deltas) - 1)]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in deltas) == ANSWER
    assert deltas[-1].choices[0].finish_reason == "stop"


async def test_chat_stream_failure_comes_in_its_place(web):
    ask = {"model": "tiny", "messages": [{"role": "user", "content": "FAIL"}]}
    stream = await web.sdk().chat.completions.create(**ask, stream=True)
    text = ""
    with pytest.raises(openai.APIError, match="engine was lost"):
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
    assert text == "w0 w1 w2 "
    with pytest.raises(openai.InternalServerError, match="engine was lost"):
        await web.sdk().chat.completions.create(**ask)


@pytest.mark.parametrize("stream", [False, True])
async def test_refused_prompt_is_an_http_error(web, stream):
    client = web.sdk()
    with pytest.raises(openai.BadRequestError) as chat:
        await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "REFUSE"}], stream=stream
        )
    with pytest.raises(openai.BadRequestError) as response:
        await client.responses.create(model="tiny", input="REFUSE", stream=stream)
    for error in (chat, response):
        assert error.value.code == "context_length_exceeded" and error.value.param == "input"


async def test_models(web):
    client = web.sdk()
    models = [model.id async for model in client.models.list()]
    assert models == ["tiny"]
    assert (await client.models.retrieve("deepseek-chat")).id == "tiny"
    with pytest.raises(openai.NotFoundError, match="tiny") as error:
        await client.responses.create(model="gpt-9", input="x")
    assert error.value.code == "model_not_found"


async def test_response(web):
    response = strict(await web.sdk().responses.create(**ASK, metadata={"a": "b"}, max_output_tokens=50))
    assert response.output_text == ANSWER and response.status == "completed"
    assert response.metadata == {"a": "b"} and response.max_output_tokens == 50
    assert response.usage.input_tokens_details.cached_tokens == 2
    extra = response.to_dict()
    assert extra["context"]["window"] == 4096 and extra["context"]["sent"] == 5
    assert extra["timing"] == {"queued_ms": 1, "prefill_ms": 2, "ttft_ms": 3, "tokens_per_second": 4}
    stored = await web.sdk().responses.retrieve(response.id)
    assert strict(stored) == response


async def test_incomplete_response(web):
    response = strict(await web.sdk().responses.create(**ASK, max_output_tokens=4))
    assert response.status == "incomplete" and response.incomplete_details.reason == "max_output_tokens"
    assert response.output[0].status == "incomplete"


async def test_response_stream(web):
    events = [event async for event in await web.sdk().responses.create(**ASK, stream=True)]
    types = [event.type for event in events]
    assert list(dict.fromkeys(types)) == ORDER
    numbers = [event.sequence_number for event in events]
    assert numbers == sorted(set(numbers)) and numbers[0] == 0
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == ANSWER
    for event in events:
        type(event).model_validate(event.to_dict(), strict=True)
    assert strict(events[-1].response).output_text == ANSWER


async def test_sdk_stream_helper(web):
    async with web.sdk().responses.stream(**ASK) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_response()
    assert final.output_text == ANSWER


async def test_background_then_resume_at_every_position(web):
    client = web.sdk()
    created = await client.responses.create(**ASK, background=True)
    assert strict(created).status == "queued" and created.background
    full = [e.to_dict() async for e in await client.responses.retrieve(created.id, stream=True)]
    assert [e["type"] for e in full][-1] == "response.completed"
    for after in range(full[-1]["sequence_number"]):
        rest = [
            e.to_dict()
            async for e in await client.responses.retrieve(created.id, stream=True, starting_after=after)
        ]
        assert [e for e in rest if "delta" not in e] == [
            e for e in full if "delta" not in e and e["sequence_number"] > after
        ]
        text = "".join(e.get("delta", "") for e in rest)
        # the deltas begin at number 5, a token each
        assert text == "".join(web.engine.answer[max(0, after + 1 - 5) :])


async def test_cancel_keeps_what_was_written(web):
    web.engine.write.clear()
    client = web.sdk()
    stream = await client.responses.create(**ASK, stream=True)
    events = []
    async for event in stream:
        events.append(event)
        if event.type == "response.output_text.delta" and not web.engine.write.is_set():
            await client.responses.cancel(events[0].response.id)
            web.engine.write.set()
    last = events[-1]
    assert last.type == "response.incomplete" and last.response.status == "cancelled"
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text and text == strict(last.response).output_text
    again = await client.responses.cancel(last.response.id)
    assert again.status == "cancelled" and again.usage.output_tokens == last.response.usage.output_tokens


async def test_cancel_while_queued(web):
    await web.engine.rest()
    client = web.sdk()
    created = await client.responses.create(**ASK, background=True)
    # the engine may just have been looking: it is in any case stopped in the end
    stopped = await client.responses.cancel(created.id)
    web.engine.go.set()
    events = [e async for e in await client.responses.retrieve(created.id, stream=True)]
    assert events[-1].response.status == "cancelled"
    assert stopped.id == created.id


async def test_conversation(web):
    client = web.sdk()
    conversation = await client.conversations.create(
        metadata={"topic": "x"}, items=[{"role": "system", "content": "Be brief."}]
    )
    first = strict(await client.responses.create(**ASK, conversation=conversation.id))
    assert first.conversation.id == conversation.id
    second = await client.responses.create(model="tiny", input="More", conversation={"id": conversation.id})
    listed = [item async for item in client.conversations.items.list(conversation.id, order="asc", limit=2)]
    texts = [item.content[0].text for item in listed]
    assert texts == ["Be brief.", "Hello", ANSWER, "More", ANSWER]
    assert listed[-1].id == second.output[0].id
    one = await client.conversations.items.retrieve(listed[1].id, conversation_id=conversation.id)
    assert one.content[0].text == "Hello"
    seen = [item async for item in client.responses.input_items.list(second.id, order="asc")]
    assert [item.content[0].text for item in seen] == texts[:-1]
    added = await client.conversations.items.create(
        conversation.id, items=[{"role": "user", "content": [{"type": "input_text", "text": "Also"}]}]
    )
    assert added.data[0].content[0].text == "Also"
    updated = await client.conversations.update(conversation.id, metadata={"topic": "y"})
    assert updated.metadata == {"topic": "y"}
    assert (await client.conversations.retrieve(conversation.id)).to_dict()["title"] == "Hello"
    assert (await client.conversations.delete(conversation.id)).deleted
    with pytest.raises(openai.NotFoundError):
        await client.conversations.retrieve(conversation.id)


async def test_previous_response_branches(web):
    client = web.sdk()
    first = await client.responses.create(**ASK)
    left = await client.responses.create(model="tiny", input="Left", previous_response_id=first.id)
    right = await client.responses.create(model="tiny", input="Right", previous_response_id=first.id)
    assert left.conversation.id == right.conversation.id == first.conversation.id
    seen = [item async for item in client.responses.input_items.list(right.id, order="asc")]
    assert [item.content[0].text for item in seen] == ["Hello", ANSWER, "Right"]
    unkept = await client.responses.create(
        model="tiny", input="Aside", previous_response_id=first.id, store=False
    )
    assert unkept.conversation is None
    assert unkept.usage.input_tokens == len("Hello" + ANSWER + "Aside")


async def test_regenerate_under_an_item(web):
    client = web.sdk()
    first = await client.responses.create(**ASK)
    items = [i async for i in client.conversations.items.list(first.conversation.id, order="asc")]
    again = await client.responses.create(
        model="tiny", conversation={"id": first.conversation.id, "parent": items[0].id}
    )
    after = [i async for i in client.conversations.items.list(first.conversation.id, order="asc")]
    assert [i.content[0].text for i in after] == ["Hello", ANSWER]
    assert after[-1].id == again.output[0].id != items[-1].id


async def test_busy_conversation(web):
    web.engine.write.clear()
    client = web.sdk()
    conversation = await client.conversations.create()
    running = await client.responses.create(**ASK, conversation=conversation.id, background=True)
    with pytest.raises(openai.ConflictError):
        await client.responses.create(**ASK, conversation=conversation.id)
    with pytest.raises(openai.ConflictError):
        await client.responses.create(model="tiny", input="x", previous_response_id=running.id)
    with pytest.raises(openai.ConflictError):
        await client.responses.delete(running.id)
    web.engine.write.set()


async def test_store_false_and_delete(web):
    client = web.sdk()
    response = await client.responses.create(**ASK, store=False)
    assert response.conversation is None and response.output_text == ANSWER
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(model="tiny", input="x", previous_response_id=response.id)
    await client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(response.id)


async def test_idempotency_attaches(web):
    client = web.sdk()
    key = {"Idempotency-Key": "once"}
    first, second = await asyncio.gather(
        client.responses.create(**ASK, extra_headers=key), client.responses.create(**ASK, extra_headers=key)
    )
    assert first.id == second.id and first.output_text == second.output_text == ANSWER
    assert web.engine.started == [first.id]
    with pytest.raises(openai.ConflictError):
        await client.responses.create(model="tiny", input="Other", extra_headers=key)


async def test_disconnect_does_not_stop(web):
    web.engine.write.clear()
    client = web.sdk()
    stream = await client.responses.create(**ASK, stream=True)
    async for event in stream:
        response_id = event.response.id
        break
    await stream.close()
    await asyncio.sleep(0.05)
    web.engine.write.set()
    events = [e async for e in await client.responses.retrieve(response_id, stream=True)]
    assert events[-1].type == "response.completed" and events[-1].response.output_text == ANSWER
    async with asyncio.timeout(60):
        while web.hub.following:
            await asyncio.sleep(0.01)
