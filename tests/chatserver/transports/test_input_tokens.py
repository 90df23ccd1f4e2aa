"""POST /v1/responses/input_tokens: what it says is what the turn then sends."""

from __future__ import annotations

import asyncio

import openai
import pytest

from chatserver.domain.response import Failure
from chatserver.ports.caches import Counted
from chatserver.service.web import counting
from tests.chatserver.transports.engine_beside import web_and_engine


@pytest.fixture
async def whole():
    async with web_and_engine({"context": 512}) as web:
        yield web


async def test_the_count_is_what_is_sent(whole):
    """Alone, with instructions, behind an answer, in a conversation, cut: exactly what usage says afterwards."""
    sdk = whole.sdk()
    first = await sdk.responses.create(
        model="scripted", input="Hello there", instructions="Be brief.", max_output_tokens=20
    )
    conversation = await sdk.conversations.create(
        items=[{"type": "message", "role": "user", "content": "Remember 42."}]
    )
    for prompt in (
        {"input": "Hello there"},
        {
            "input": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hello \u200bthere"},
            ]
        },
        {"input": "And then?", "previous_response_id": first.id, "instructions": "Be brief."},
        {"input": "Which number?", "conversation": conversation.id},
        {"input": "word " * 200, "conversation": conversation.id, "truncation": "auto"},
        {"input": "word " * 200, "conversation": conversation.id, "truncation": "auto"},
    ):
        counted = await sdk.responses.input_tokens.count(model="scripted", **prompt)
        assert counted.object == "response.input_tokens"
        answer = await sdk.responses.create(model="scripted", max_output_tokens=20, **prompt)
        assert counted.input_tokens == answer.usage.input_tokens, prompt
    listed = await sdk.conversations.items.list(conversation.id, limit=100)
    assert len(listed.data) == 7  # counting added none


async def test_more_than_the_window_is_counted_all_the_same(whole):
    counted = await whole.sdk().responses.input_tokens.count(model="scripted", input="word " * 2000)
    assert counted.input_tokens > 512


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"input": "x", "temperature": 1}, 400, "temperature"),
        ({"input": "x", "stream": True}, 400, "stream"),
        ({"input": 5}, 400, "input"),
        ({"input": "x", "model": "gpt-9"}, 404, "model"),
        ({"input": "x", "previous_response_id": "resp_x"}, 404, "previous_response_id"),
        ({"input": "x", "conversation": "conv_x"}, 404, "conversation"),
    ],
)
async def test_mistakes_are_named(web, body, status, param):
    refused = await web.http().post("/v1/responses/input_tokens", json=body)
    assert refused.status_code == status and refused.json()["error"]["param"] == param


async def test_an_engine_that_is_silent_or_fails(web, monkeypatch):
    """503 with a time to come back; what the engine says went wrong."""
    monkeypatch.setattr(counting, "PATIENCE", 0.05)
    silent = await web.http().post("/v1/responses/input_tokens", json={"input": "x"})
    assert silent.status_code == 503 and "retry-after" in silent.headers

    async def failing(command):
        return [Counted(failure=Failure("not_found", "gone", "conversation", 404))]

    monkeypatch.setattr(web.store.caches, "counts", failing, raising=False)
    gone = await web.http().post("/v1/responses/input_tokens", json={"input": "x"})
    assert gone.status_code == 404 and gone.json()["error"]["param"] == "conversation"


async def test_many_at_once(whole):
    sdk = whole.sdk()
    counts = await asyncio.gather(
        *(
            sdk.responses.input_tokens.count(model="scripted", input="word " * number)
            for number in range(1, 41)
        )
    )
    assert sorted({count.input_tokens for count in counts}) == [count.input_tokens for count in counts]
    with pytest.raises(openai.NotFoundError, match="served are"):
        await sdk.responses.input_tokens.count(model="unknown", input="x")
