"""Log-probabilities through the official SDK: scripted engine, real store, real web process."""

from __future__ import annotations

import pytest
from openai import BadRequestError
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response

from chatserver.wire.logprobs import INCLUDE
from tests.chatserver.transports.test_forms import CHAT_TOOLS, ask, sdk

__all__ = ["sdk"]
CHAT = {"model": "scripted", "max_tokens": 40, "temperature": 0, "logprobs": True, "top_logprobs": 3}
ASK = {
    "model": "scripted",
    "input": "Hi",
    "max_output_tokens": 40,
    "temperature": 0,
    "include": [INCLUDE],
    "top_logprobs": 3,
}


def spelt(logprobs) -> str:
    """The text that tokens make."""
    return b"".join(bytes(token.bytes) for token in logprobs).decode()


@pytest.mark.parametrize("more", [{}, {"n": 2}, {"extra_body": {"thinking": {"type": "enabled"}}}])
async def test_chat_completions(sdk, more):
    """Whole and streamed: the same tokens, whose bytes are the content; three likeliest at each place."""
    body = {**CHAT, "messages": ask("Hi"), "max_tokens": 200, **more}
    whole = await sdk.chat.completions.create(**body)
    ChatCompletion.model_validate(whole.to_dict(), strict=True)
    for choice in whole.choices:
        content = choice.logprobs.content
        assert choice.message.content and spelt(content) == choice.message.content
        assert choice.logprobs.refusal is None
        for token in content:
            assert len(token.top_logprobs) == 3 and token.logprob < 0
            assert (token.top_logprobs[0].token, token.top_logprobs[0].logprob) == (
                token.token,
                token.logprob,
            )
    streamed = {}
    async for chunk in await sdk.chat.completions.create(**body, stream=True):
        ChatCompletionChunk.model_validate(chunk.to_dict(), strict=True)
        (choice,) = chunk.choices
        if choice.logprobs:
            assert spelt(choice.logprobs.content) == choice.delta.content
            streamed.setdefault(choice.index, []).extend(choice.logprobs.content)
    assert streamed == {choice.index: choice.logprobs.content for choice in whole.choices}


async def test_the_sdk_puts_chunks_together(sdk):
    """Its own accumulator sees what the whole answer has; calls have none."""
    body = {**CHAT, "messages": ask("Hi"), "max_tokens": 400}
    whole = await sdk.chat.completions.create(**body)
    async with sdk.chat.completions.stream(**body) as stream:
        found = (await stream.get_final_completion()).choices[0]
    assert found.logprobs.content == whole.choices[0].logprobs.content
    called = await sdk.chat.completions.create(
        **{**CHAT, "messages": ask("Use get_weather"), "max_tokens": 400}, tools=CHAT_TOOLS
    )
    assert called.choices[0].finish_reason == "tool_calls" and called.choices[0].logprobs.content == []


async def test_only_its_own(sdk):
    """Without top_logprobs there are no others; without logprobs null."""
    body = {**CHAT, "messages": ask("Hi")}
    own = await sdk.chat.completions.create(**{**body, "top_logprobs": 0})
    content = own.choices[0].logprobs.content
    assert content and all(token.top_logprobs == [] for token in content)
    plain = await sdk.chat.completions.create(**{**body, "top_logprobs": None, "logprobs": None})
    assert plain.choices[0].logprobs is None


async def test_responses(sdk):
    """Deltas, the ends of text, part and item, the response, and what is read later: all the same tokens."""
    events = [event async for event in await sdk.responses.create(**ASK, stream=True)]
    last = events[-1].response
    Response.model_validate(last.to_dict(), strict=True)
    assert last.top_logprobs == 3
    expected = [token.to_dict() for token in last.output[0].content[0].logprobs]
    assert spelt(last.output[0].content[0].logprobs) == last.output_text
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    for event in deltas:
        assert b"".join(bytes(token.to_dict()["bytes"]) for token in event.logprobs).decode() == event.delta
    assert [token.to_dict() for event in deltas for token in event.logprobs] == expected
    by_type = {event.type: event for event in events}
    done, part = by_type["response.output_text.done"], by_type["response.content_part.done"].part
    item = by_type["response.output_item.done"].item
    for logprobs in (done.logprobs, part.logprobs, item.content[0].logprobs):
        assert [token.to_dict() for token in logprobs] == expected
    for later in (
        await sdk.responses.retrieve(last.id),
        await sdk.responses.retrieve(last.id, include=[INCLUDE]),
        await sdk.responses.create(**ASK),
    ):
        assert [token.to_dict() for token in later.output[0].content[0].logprobs] == expected
    half = by_type["response.content_part.added"].sequence_number + 20
    rest = await sdk.responses.retrieve(last.id, stream=True, starting_after=half)
    found = [e async for e in rest if e.type == "response.output_text.delta"]
    told = [token.to_dict() for event in found for token in event.logprobs]
    assert len(expected) == 40 and told == expected[20:]


async def test_what_comes_back_as_input_is_taken(sdk):
    """The output with its log-probabilities is an input again."""
    first = await sdk.responses.create(**ASK)
    history = [{"role": "user", "content": "Hi"}, *(item.to_dict() for item in first.output)]
    second = await sdk.responses.create(**{**ASK, "input": [*history, {"role": "user", "content": "More"}]})
    assert second.output[0].content[0].logprobs


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({**ASK, "top_logprobs": 21}, "top_logprobs"),
        ({**ASK, "include": []}, "top_logprobs"),
    ],
)
async def test_refusals_name_the_field(sdk, body, field):
    with pytest.raises(BadRequestError) as error:
        await sdk.responses.create(**body)
    assert error.value.param == field
    with pytest.raises(BadRequestError) as error:
        await sdk.chat.completions.create(
            model="scripted", messages=ask("Hi"), logprobs=body["top_logprobs"] > 20, top_logprobs=21
        )
    assert error.value.param == "top_logprobs"
