"""DeepSeek's chat prefix completion through the official SDK: an answer goes on from what the client wrote."""

from __future__ import annotations

import pytest
from openai import BadRequestError

from tests.chatserver.transports.test_forms import client_of

ASK = [{"role": "user", "content": "Tell me of the sea"}]


@pytest.fixture
async def sdk():
    async with client_of(aliases=("deepseek-chat", "deepseek-reasoner")) as client:
        yield client


def begun(text: str) -> list[dict]:
    return [*ASK, {"role": "assistant", "content": text, "prefix": True}]


async def test_an_answer_goes_on_from_its_prefix(sdk):
    """The scripted engine writes on from ids: behind the beginning of an answer comes the rest of it, and only that."""
    fixed = {"model": "deepseek-chat", "seed": 7, "max_tokens": 60}
    whole = await sdk.chat.completions.create(messages=ASK, **fixed)
    text = whole.choices[0].message.content
    at = text.index(" ", len(text) // 2)
    rest = await sdk.with_options(base_url=str(sdk.base_url).replace("/v1", "/beta")).chat.completions.create(
        messages=begun(text[:at]), **fixed
    )
    assert rest.choices[0].message.content.startswith(text[at:])
    assert rest.usage.prompt_tokens > whole.usage.prompt_tokens
    streamed = await sdk.chat.completions.create(messages=begun(text[:at]), stream=True, **fixed)
    pieces = [chunk.choices[0].delta.content or "" async for chunk in streamed if chunk.choices]
    assert "".join(pieces) == rest.choices[0].message.content


async def test_nothing_is_reasoned_before_it(sdk):
    """Also by the name that means reasoning."""
    answer = await sdk.chat.completions.create(
        model="deepseek-reasoner", messages=begun("The sea"), max_tokens=20
    )
    assert answer.usage.completion_tokens_details.reasoning_tokens == 0


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        (
            [*begun("x"), *ASK],
            "messages[1].prefix: true is supported on the last message only; leave it out or send false or null",
        ),
        ([*ASK, {**begun("x")[1], "prefix": "yes"}], "messages[1].prefix: expected true or false, got 'yes'"),
        (
            [*ASK, {**begun("x")[1], "name": "x"}],
            "messages[1].name: 'x' is not supported on a prefix; leave it out or send null",
        ),
    ],
)
async def test_a_refusal_says_what_to_send(sdk, messages, told):
    with pytest.raises(BadRequestError) as caught:
        await sdk.chat.completions.create(model="deepseek-chat", messages=messages)
    assert caught.value.body["message"] == told


@pytest.mark.parametrize(
    ("messages", "more", "param"),
    [
        ([*ASK, {"role": "user", "content": "x", "prefix": True}], {}, "messages[1].prefix"),
        ([{"role": "assistant", "content": "x", "prefix": True}], {}, "messages[0].prefix"),
        ([*begun("x"), *ASK], {}, "messages[1].prefix"),
        (begun(""), {}, "messages[1].content"),
        (begun("x"), {"extra_body": {"thinking": {"type": "enabled"}}}, "messages[1].prefix"),
        (begun("x"), {"response_format": {"type": "json_object"}}, "messages[1].prefix"),
        (begun("x"), {"extra_headers": {"X-Conversation-Id": "new"}}, "messages[1].prefix"),
    ],
)
async def test_what_cannot_be_is_refused(sdk, messages, more, param):
    """By the name of the field."""
    with pytest.raises(BadRequestError) as caught:
        await sdk.chat.completions.create(model="deepseek-chat", messages=messages, **more)
    assert caught.value.param == param
