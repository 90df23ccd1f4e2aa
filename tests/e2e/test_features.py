"""What a request may ask of a model, on the real engine, by the official SDK: calls, structure, stops and more.

The form is forced (by a name, a schema, a stop string): what a model of 135 million parameters means by it is its own.
"""

from __future__ import annotations

import json
import time

import openai
import pytest
import redis
from jsonschema import validate

from chatserver.adapters.embedded import socket_path
from chatserver.ports.turns import FLEETING_TTL
from tests.e2e.conftest import client_of

pytestmark = [pytest.mark.e2e, pytest.mark.sglang]

MODEL = "smollm2-135m-instruct"
CITY = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "days": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
NOTES = {"type": "string", "minLength": 100, "maxLength": 120}
LONG = {
    **CITY,
    "properties": {**CITY["properties"], "notes": NOTES},
    "required": [*CITY["required"], "notes"],
}
"""So long that not all of it comes at once, however late its reader is."""
ABOUT = {"name": "get_weather", "description": "The weather of the coming days", "parameters": CITY}
QUESTION = "What will the weather be like in Paris for 3 days?"
CHAT = {
    "model": MODEL,
    "messages": [{"role": "user", "content": QUESTION}],
    "temperature": 0,
    "max_tokens": 80,
}
ASK = {"model": MODEL, "input": QUESTION, "temperature": 0, "max_output_tokens": 300}
CHAT_CALL = {
    "tools": [{"type": "function", "function": ABOUT}],
    "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
}
CALL = {
    "tools": [{"type": "function", **ABOUT, "strict": True}],
    "tool_choice": {"type": "function", "name": "get_weather"},
}
LOGPROBS = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
ENDS = ("response.completed", "response.incomplete", "response.failed", "error")


@pytest.fixture(scope="module")
def client(real):
    return client_of(real)


def over_http(client, **body) -> list:
    return list(client.responses.create(**ASK, **body, stream=True))


def over_websocket(client, **body) -> list:
    events = []
    with client.responses.connect() as connection:
        connection.response.create(**ASK, **body)
        for event in connection:
            events.append(event)
            if event.type in ENDS:
                return events
    raise AssertionError("the socket was closed before the end")


DOORS = pytest.mark.parametrize("door", [over_http, over_websocket], ids=["http", "websocket"])


def joined(events: list, kind: str) -> str:
    return "".join(event.delta for event in events if event.type == kind)


def spelt(logprobs) -> str:
    """The text that tokens make."""
    told = [token if isinstance(token, dict) else token.to_dict() for token in logprobs]
    return b"".join(bytes(token["bytes"]) for token in told).decode()


def test_a_named_call_on_chat_completions(client):
    """Called by name, whole and streamed: the same call, in deltas that only then have a name when it begins."""
    whole = client.chat.completions.create(**CHAT, **CHAT_CALL).choices[0]
    (call,) = whole.message.tool_calls
    assert (whole.finish_reason, whole.message.content) == ("tool_calls", None)
    assert call.function.name == "get_weather"
    validate(json.loads(call.function.arguments), CITY)
    names, arguments = [], []
    for chunk in client.chat.completions.create(**CHAT, **CHAT_CALL, stream=True):
        for delta in chunk.choices[0].delta.tool_calls or ():
            names += [delta.function.name] if delta.function.name else []
            arguments += [delta.function.arguments or ""]
    assert names == ["get_weather"] and len(arguments) > 1
    assert "".join(arguments) == call.function.arguments


@DOORS
def test_a_named_call_on_responses(client, door):
    """The call's arguments come in deltas, and as a whole at each end; what it gave is answered."""
    tools = [{**CALL["tools"][0], "parameters": LONG}]
    events = door(client, **{**CALL, "tools": tools})
    last = events[-1].response
    (call,) = last.output
    assert (events[-1].type, call.type, call.name) == ("response.completed", "function_call", "get_weather")
    validate(json.loads(call.arguments), LONG)
    assert joined(events, "response.function_call_arguments.delta") == call.arguments
    assert sum(event.type == "response.function_call_arguments.delta" for event in events) > 1
    done = next(event for event in events if event.type == "response.function_call_arguments.done")
    assert (done.arguments, done.item_id) == (call.arguments, call.id)
    after = client.responses.create(
        model=MODEL,
        previous_response_id=last.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "sunny, 21 degrees"}],
        tools=tools,
        temperature=0,
        max_output_tokens=16,
    )
    assert after.output
    assert after.usage.input_tokens_details.cached_tokens >= last.usage.total_tokens - 1


def test_an_answer_goes_on_from_a_prefix(client):
    """Greedy: behind the beginning of an answer comes its rest."""
    whole = client.chat.completions.create(**CHAT).choices[0].message.content
    at = whole.index(" ", len(whole) // 2)
    begun = [*CHAT["messages"], {"role": "assistant", "content": whole[:at], "prefix": True}]
    rest = client.chat.completions.create(**CHAT | {"messages": begun}).choices[0].message.content
    assert rest.startswith(whole[at:])


def test_a_schema_is_kept_on_chat_completions(client):
    kept = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}}
    answer = client.chat.completions.create(**CHAT, response_format=kept).choices[0]
    assert answer.finish_reason == "stop"
    validate(json.loads(answer.message.content), CITY)


@DOORS
def test_a_schema_is_kept_on_responses(client, door):
    events = door(client, text={"format": {"type": "json_schema", "name": "city", "schema": CITY}})
    assert events[-1].type == "response.completed"
    text = joined(events, "response.output_text.delta")
    assert events[-1].response.output_text == text
    validate(json.loads(text), CITY)


def test_logprobs_on_chat_completions(client):
    """They spell the text; at temperature 0 the token itself is the likeliest, with the model's own figures."""
    body = {**CHAT, "max_tokens": 12, "logprobs": True, "top_logprobs": 2, "extra_body": {"ignore_eos": True}}
    whole = client.chat.completions.create(**body).choices[0]
    told = whole.logprobs.content
    assert len(told) == 12 and spelt(told) == whole.message.content
    for token in told:
        assert [token.token, token.logprob] == [token.top_logprobs[0].token, token.top_logprobs[0].logprob]
        assert len(token.top_logprobs) == 2 and token.top_logprobs[1].logprob <= token.logprob <= 0
    streamed = [
        token
        for chunk in client.chat.completions.create(**body, stream=True)
        if chunk.choices and chunk.choices[0].logprobs
        for token in chunk.choices[0].logprobs.content
    ]
    assert [token.token for token in streamed] == [token.token for token in told]


@DOORS
def test_logprobs_on_responses(client, door):
    """Those of the deltas are those of the whole."""
    events = door(client, **LOGPROBS)
    content = events[-1].response.output[0].content[0]
    assert spelt(content.logprobs) == content.text
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert [token.to_dict() for event in deltas for token in event.logprobs] == [
        token.to_dict() for token in content.logprobs
    ]
    assert all(spelt(event.logprobs) == event.delta for event in deltas)


def test_two_answers_to_one_question(client):
    """n=2: two choices that differ, drawn with seeds of their own; a seed repeats both."""
    drawn = {
        **CHAT,
        "temperature": 1,
        "max_tokens": 16,
        "n": 2,
        "seed": 7,
        "extra_body": {"ignore_eos": True},
    }
    first, again = (client.chat.completions.create(**drawn) for _ in range(2))
    texts = [[choice.message.content for choice in answer.choices] for answer in (first, again)]
    assert texts[0] == texts[1] and len(set(texts[0])) == 2
    assert first.usage.completion_tokens == 32
    other = client.chat.completions.create(**{**drawn, "seed": 4711})
    assert other.choices[0].message.content not in texts[0]


def test_a_stop_string_ends_the_answer_before_itself(client):
    on = {**CHAT, "extra_body": {"ignore_eos": True}}
    whole = client.chat.completions.create(**on).choices[0].message.content
    stop = whole.split()[4]
    cut = client.chat.completions.create(**on, stop=[stop]).choices[0]
    assert (cut.finish_reason, cut.message.content) == ("stop", whole.partition(stop)[0])


def test_nothing_is_kept_of_what_is_not_to_be_stored(client, real):
    """`store: false`: no conversation, no item; what says anything of it has an end set, and then it is gone."""
    word = "xylophone-4711"
    before = {c["id"] for c in client.get("/conversations", cast_to=object)["data"]}
    answer = client.responses.create(
        **{**ASK, "input": f"Repeat: {word}"}, store=False, extra_body={"ignore_eos": True}
    )
    assert answer.output_text and answer.conversation is None
    assert {c["id"] for c in client.get("/conversations", cast_to=object)["data"]} == before
    with redis.Redis(unix_socket_path=str(socket_path(real.data_dir))) as store:
        held = {name: store.pttl(name) for name in store.scan_iter() if word in contents(store, name)}
        assert held and all(0 < left <= FLEETING_TTL * 1000 for left in held.values()), held
        tape = f"{answer.id}:tape".encode()
        assert [
            0 < store.pttl(name) <= FLEETING_TTL * 1000 for name in store.scan_iter() if tape in name
        ] == [True]
        for name in store.scan_iter(match=f"*{answer.id}*"):
            store.pexpire(name, 1)  # as if the time were over
        time.sleep(0.01)
    for stream in (False, True):
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(answer.id, stream=stream)


def contents(store, name: bytes) -> str:
    """All that stands under a name, as text."""
    read = {
        b"hash": store.hgetall,
        b"stream": store.xrange,
        b"string": store.get,
        b"set": store.smembers,
        b"list": lambda key: store.lrange(key, 0, -1),
        b"zset": lambda key: store.zrange(key, 0, -1),
    }
    return str(read[store.type(name)](name))
