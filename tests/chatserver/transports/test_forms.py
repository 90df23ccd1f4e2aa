"""Tools, structured output and reasoning through the official SDK: scripted engine, real store, real web process."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from openai import BadRequestError
from pydantic import BaseModel

from engine.scripted import ScriptedEngine
from tests.chatserver.service.engine_role import scripted, worker
from tests.chatserver.transports.conftest import opened_store, running_web

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ADD = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
CHAT_TOOLS = [
    {"type": "function", "function": {"name": name, "description": "-", "parameters": schema}}
    for name, schema in (("get_weather", WEATHER), ("add", ADD))
]
TOOLS = [
    {"type": "function", "name": name, "parameters": schema, "strict": False}
    for name, schema in (("get_weather", WEATHER), ("add", ADD))
]


NAMES = ("deepseek-chat", "deepseek-reasoner")


class Person(BaseModel):
    name: str
    age: int


class NoEngine:
    async def run(self) -> None: ...
    async def close(self) -> None: ...


@pytest.fixture
async def sdk():
    async with client_of() as client:
        yield client


@asynccontextmanager
async def client_of(**options):
    """The SDK before a scripted engine of its own."""
    async with (
        opened_store("valkey") as store,
        scripted(**options) as engine,
        worker(store, engine),
        running_web(store, engine=NoEngine()) as web,
    ):
        yield web.sdk()


@pytest.fixture
async def named():
    """A model with DeepSeek's names."""
    async with client_of(aliases=NAMES) as client:
        yield client


@pytest.fixture
async def named_plain(monkeypatch):
    """The same, of a template without a switch for reasoning."""
    made = ScriptedEngine.card.fget
    monkeypatch.setattr(
        ScriptedEngine, "card", property(lambda self: replace(made(self), thinking_switch=False))
    )
    async with client_of(aliases=NAMES) as client:
        yield client


def ask(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


async def test_calls_stream_on_chat_completions(sdk):
    """Two calls at once; the deltas make what the whole answer has; what they gave is answered."""
    body = {
        "model": "scripted",
        "messages": ask("Use get_weather and add"),
        "tools": CHAT_TOOLS,
        "max_tokens": 400,
    }
    whole = await sdk.chat.completions.create(**body)
    choice = whole.choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls]
    assert calls == [("get_weather", {"city": "word"}), ("add", {"a": 1, "b": 1})]
    async with sdk.chat.completions.stream(**body) as stream:
        found = (await stream.get_final_completion()).choices[0]
    assert found.finish_reason == "tool_calls"
    assert [(c.function.name, json.loads(c.function.arguments)) for c in found.message.tool_calls] == calls
    history = [
        *ask("Use get_weather and add"),
        choice.message.model_dump(exclude_none=True),
        *({"role": "tool", "tool_call_id": c.id, "content": "7"} for c in choice.message.tool_calls),
    ]
    after = await sdk.chat.completions.create(
        model="scripted", messages=history, tools=CHAT_TOOLS, max_tokens=20
    )
    assert after.choices[0].message.content and after.choices[0].finish_reason in ("stop", "length")


@pytest.mark.parametrize(
    ("choice", "parallel", "names"),
    [
        ("none", True, []),
        ("required", True, ["get_weather"]),
        ({"type": "function", "function": {"name": "add"}}, True, ["add"]),
        ("auto", False, ["get_weather"]),
    ],
)
async def test_the_choice_of_tools(sdk, choice, parallel, names):
    text = "Use get_weather and add" if choice in ("none", "auto") else "Hello"
    answer = await sdk.chat.completions.create(
        model="scripted",
        messages=ask(text),
        tools=CHAT_TOOLS,
        tool_choice=choice,
        parallel_tool_calls=parallel,
        max_tokens=60,
    )
    assert [c.function.name for c in answer.choices[0].message.tool_calls or ()] == names


async def test_calls_are_items_of_a_response(sdk):
    """The SDK's stream helper sees the call grow; the conversation goes on behind what it gave, to the id."""
    async with sdk.responses.stream(model="scripted", input="Use add", tools=TOOLS) as stream:
        deltas = [e.delta async for e in stream if e.type == "response.function_call_arguments.delta"]
        response = await stream.get_final_response()
    (call,) = response.output
    assert call.type == "function_call" and "".join(deltas) == call.arguments
    again = await sdk.responses.retrieve(response.id)
    assert again.output[0].call_id == call.call_id and again.tools[0].name == "get_weather"
    after = await sdk.responses.create(
        model="scripted",
        previous_response_id=response.id,
        tools=TOOLS,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "2"}],
        max_output_tokens=20,
    )
    assert after.output[0].type == "message"
    details = after.usage.input_tokens_details
    assert details.cached_tokens >= response.usage.total_tokens - 1  # nothing of the call was encoded again
    items = [item async for item in sdk.conversations.items.list(after.conversation.id, order="asc")]
    assert [item.type for item in items] == ["message", "function_call", "function_call_output", "message"]
    one = await sdk.conversations.items.retrieve(call.id, conversation_id=after.conversation.id)
    assert one.type == "function_call"


async def test_a_stream_is_resumed_within_a_call(sdk):
    stream = await sdk.responses.create(model="scripted", input="Use add", tools=TOOLS, stream=True)
    events = [event async for event in stream]
    response = events[0].response
    pieces = [(e.sequence_number, e.delta) for e in events if e.type.endswith("arguments.delta")]
    assert "".join(piece for _, piece in pieces) == '{"a": 1, "b": 1}'
    for event in events[:-1]:
        rest = await sdk.responses.retrieve(response.id, stream=True, starting_after=event.sequence_number)
        told = [e async for e in rest]
        text = "".join(e.delta for e in told if e.type.endswith("arguments.delta"))
        assert text == "".join(piece for number, piece in pieces if number > event.sequence_number)
        assert told[-1].type == "response.completed"


async def test_structured_output_is_parsed(sdk):
    """`parse` of both dialects, and a streamed one."""
    chat = await sdk.chat.completions.parse(model="scripted", messages=ask("Hi"), response_format=Person)
    assert chat.choices[0].message.parsed == Person(name="word", age=1)
    response = await sdk.responses.parse(model="scripted", input="Hi", text_format=Person)
    assert response.output_parsed == Person(name="word", age=1)
    async with sdk.responses.stream(model="scripted", input="Hi", text_format=Person) as stream:
        assert (await stream.get_final_response()).output_parsed == Person(name="word", age=1)
    loose = await sdk.chat.completions.create(
        model="scripted", messages=ask("Hi"), response_format={"type": "json_object"}
    )
    assert isinstance(json.loads(loose.choices[0].message.content), dict)


async def test_a_schema_that_is_none_is_refused_by_name(sdk):
    bad = {"type": "objekt"}
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": bad}}
    tool = {"type": "function", "function": {"name": "x", "parameters": bad}}
    for more, field in (
        ({"response_format": shape}, "response_format.json_schema.schema"),
        ({"tools": [tool]}, "tools[0].function.parameters"),
    ):
        for stream in (False, True):
            with pytest.raises(BadRequestError) as error:
                await sdk.chat.completions.create(model="scripted", messages=ask("Hi"), stream=stream, **more)
            assert error.value.param == field
    with pytest.raises(BadRequestError) as error:
        text = {"format": {"type": "json_schema", "name": "x", "schema": bad}}
        await sdk.responses.create(model="scripted", input="Hi", text=text)
    assert error.value.param == "text.format.schema"


async def as_deepseeks_examples(sdk) -> tuple[str, str]:
    """Read as its pages do: each delta's reasoning is looked at, else its text is added."""
    asked = {"model": "deepseek-reasoner", "messages": ask("Which is greater, 9.11 or 9.8?"), "seed": 3}
    reasoning_content = content = ""
    async for chunk in await sdk.chat.completions.create(**asked, stream=True):
        if chunk.choices[0].delta.reasoning_content:
            reasoning_content += chunk.choices[0].delta.reasoning_content
        else:
            content += chunk.choices[0].delta.content
    message = (await sdk.chat.completions.create(**asked)).choices[0].message
    assert (message.reasoning_content or "", message.content) == (reasoning_content, content)
    return reasoning_content, content


async def test_deepseeks_examples(named):
    """The attribute is there in every delta, and text is never null where there is no reasoning."""
    assert all(await as_deepseeks_examples(named))


async def test_deepseeks_examples_where_nothing_is_reasoned(named_plain):
    reasoning_content, content = await as_deepseeks_examples(named_plain)
    assert content and not reasoning_content


async def test_reasoning_beside_content(sdk):
    """DeepSeek's dialect: reasoning_content in the message and in the deltas; the history may carry it back."""
    more = {"extra_body": {"thinking": {"type": "enabled"}}}
    whole = await sdk.chat.completions.create(model="scripted", messages=ask("Hi"), **more)
    message = whole.choices[0].message
    assert message.reasoning_content and message.content
    assert 0 < whole.usage.completion_tokens_details.reasoning_tokens < whole.usage.completion_tokens
    stream = await sdk.chat.completions.create(model="scripted", messages=ask("Hi"), stream=True, **more)
    deltas = [chunk.choices[0].delta async for chunk in stream]
    assert "".join(getattr(d, "reasoning_content", None) or "" for d in deltas) == message.reasoning_content
    assert "".join(d.content or "" for d in deltas) == message.content
    response = await sdk.responses.create(model="scripted", input="Hi", reasoning={"effort": "high"})
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.output[0].content[0].text and response.reasoning.effort == "high"
    history = [*ask("Hi"), *(item.model_dump(exclude_none=True) for item in response.output), *ask("And?")]
    again = await sdk.responses.create(model="scripted", input=history, store=False, max_output_tokens=5)
    assert again.output_text


def reasons(message) -> bool:
    return bool(getattr(message, "reasoning_content", None))


@pytest.mark.parametrize(
    ("name", "more", "expected"),
    [
        ("deepseek-reasoner", {}, True),
        ("DeepSeek-Reasoner", {}, True),
        ("deepseek-chat", {}, False),
        ("scripted", {}, False),
        ("deepseek-reasoner", {"thinking": {"type": "disabled"}}, False),
        ("deepseek-reasoner", {"reasoning_effort": "none"}, False),
        ("deepseek-chat", {"thinking": {"type": "enabled"}}, True),
        ("deepseek-chat", {"reasoning_effort": "high"}, True),
    ],
)
async def test_a_name_means_with_or_without_reasoning(named, name, more, expected):
    """As at DeepSeek's API, in both dialects and on streams; what a request says of it wins."""
    answer = await named.chat.completions.create(model=name, messages=ask("Hi"), extra_body=more)
    assert reasons(answer.choices[0].message) is expected and answer.model == "scripted"
    stream = await named.chat.completions.create(model=name, messages=ask("Hi"), stream=True, extra_body=more)
    assert any([reasons(chunk.choices[0].delta) async for chunk in stream]) is expected
    if "thinking" not in more:
        effort = {"reasoning": {"effort": more["reasoning_effort"]}} if more else {}
        response = await named.responses.create(model=name, input="Hi", **effort)
        assert ("reasoning" in [item.type for item in response.output]) is expected
        after = await named.responses.create(input="And?", previous_response_id=response.id)
        assert "reasoning" not in [item.type for item in after.output]  # the name said it for its request


async def test_a_name_means_nothing_where_there_is_no_switch(named_plain):
    """A model that never reasons answers to both names."""
    for name in ("deepseek-reasoner", "deepseek-chat"):
        answer = await named_plain.chat.completions.create(model=name, messages=ask("Hi"))
        assert answer.choices[0].message.content and not reasons(answer.choices[0].message)


async def test_pages_of_items_may_cut_an_answer(sdk):
    """One at a time, both ways, on a branch, on all branches, and of what a response saw: each item once."""
    more = {"reasoning": {"effort": "high"}, "tools": TOOLS, "max_output_tokens": 400}
    first = await sdk.responses.create(model="scripted", input="Use get_weather and add", **more)
    outputs = [
        {"type": "function_call_output", "call_id": item.call_id, "output": "7"}
        for item in first.output
        if item.type == "function_call"
    ]
    last = await sdk.responses.create(
        model="scripted", input=outputs, previous_response_id=first.id, reasoning={"effort": "high"}
    )
    name = last.conversation.id
    whole = [item.id for item in (await sdk.conversations.items.list(name, limit=100, order="asc")).data]
    assert len(whole) == len(set(whole)) == 1 + len(first.output) + len(outputs) + len(last.output) >= 7
    for limit in (1, 2, 3):
        for order in ("asc", "desc"):
            found = [item.id async for item in sdk.conversations.items.list(name, limit=limit, order=order)]
            assert found == (whole if order == "asc" else whole[::-1])
            seen = [
                item.id async for item in sdk.responses.input_items.list(last.id, limit=limit, order=order)
            ]
            asked = whole[: -len(last.output)]
            assert seen == (asked if order == "asc" else asked[::-1])
        pages = sdk.conversations.items.list(name, limit=limit, extra_query={"branches": "all"})
        everything = [item.id async for item in pages]
        assert sorted(everything) == sorted(whole)
