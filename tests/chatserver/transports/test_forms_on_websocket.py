"""Tools, structure, reasoning and log-probabilities over the SDK's `connect()`: the same events as over HTTP."""

from __future__ import annotations

import json

import pytest

from chatserver.wire.logprobs import INCLUDE
from tests.chatserver.transports.test_forms import TOOLS, Person, sdk

__all__ = ["sdk"]
SCHEMA = {"type": "json_schema", "name": "person", "schema": Person.model_json_schema()}
ASKS = {
    "call": {"input": "Use get_weather and add", "tools": TOOLS, "max_output_tokens": 200},
    "named": {"input": "Hi", "tools": TOOLS, "tool_choice": {"type": "function", "name": "add"}},
    "schema": {"input": "Hi", "text": {"format": SCHEMA}},
    "reasoning": {"input": "Hi", "reasoning": {"effort": "high"}},
    "logprobs": {"input": "Hi", "include": [INCLUDE], "top_logprobs": 3, "max_output_tokens": 30},
}
ENDS = ("response.completed", "response.incomplete", "response.failed")
OWN = ("id", "item_id", "call_id", "response", "response_id", "item", "stream_id")


def shape(event) -> dict:
    """An event without what no two answers share."""
    told = {name: value for name, value in event.to_dict().items() if name not in OWN}
    return told | ({"part": {**told["part"], "id": None}} if "part" in told else {})


def together(events) -> list[dict]:
    """The events with neighbouring deltas joined: how they are cut is a matter of time."""
    found: list[dict] = []
    for told in map(shape, events):
        last = found[-1] if found else {}
        if "delta" in told and last.get("type") == told["type"]:
            last["delta"] += told["delta"]
            if "logprobs" in told:
                last["logprobs"] += told["logprobs"]
        elif told["type"] != "response.queue_position":
            found.append(told)
        if "delta" in told:
            found[-1].pop("sequence_number", None)
    return found


async def answer(connection, **body) -> list:
    """Ask on a socket; return the events to the end."""
    await connection.response.create(model="scripted", temperature=0, **body)
    events = []
    async for event in connection:
        events.append(event)
        if event.type in ENDS:
            return events
    raise AssertionError("closed before the end")


@pytest.mark.parametrize("kind", ASKS)
async def test_the_events_are_those_of_http(sdk, kind):
    async with sdk.responses.connect() as connection:
        over_socket = await answer(connection, **ASKS[kind])
    stream = await sdk.responses.create(model="scripted", temperature=0, stream=True, **ASKS[kind])
    over_http = [event async for event in stream]
    assert together(over_socket) == together(over_http)
    for event in over_socket[-1].response.output:
        if event.type == "function_call":
            assert json.loads(event.arguments)
    if kind == "schema":
        Person.model_validate_json(over_socket[-1].response.output_text)
    if kind == "logprobs":
        deltas = [event for event in over_socket if event.type == "response.output_text.delta"]
        told = [token.to_dict() for event in deltas for token in event.logprobs]
        whole = over_socket[-1].response.output[0].content[0].logprobs
        assert told == [token.to_dict() for token in whole] and len(told) == 30


async def test_all_of_them_at_once_in_lanes_of_their_own(sdk):
    """Each lane's call, schema, reasoning and figures are its own."""
    ended, kinds = {}, {}
    async with sdk.responses.connect() as connection:
        for lane, body in ASKS.items():
            await connection.response.create(model="scripted", temperature=0, stream_id=lane, **body)
        async for event in connection:
            if event.type in ENDS:
                ended[event.stream_id] = event.response
                kinds[event.stream_id] = [item.type for item in event.response.output]
            if len(ended) == len(ASKS):
                break
    assert kinds == {
        "call": ["function_call", "function_call"],
        "named": ["function_call"],
        "schema": ["message"],
        "reasoning": ["reasoning", "message"],
        "logprobs": ["message"],
    }
    assert [call.name for call in ended["call"].output] == ["get_weather", "add"]
    assert (
        ended["logprobs"].output[0].content[0].logprobs and not ended["schema"].output[0].content[0].logprobs
    )


async def test_a_call_is_answered_on_the_same_socket(sdk):
    """What the call gave goes back by previous_response_id; then the answer is words."""
    async with sdk.responses.connect() as connection:
        called = (await answer(connection, input="Use add", tools=TOOLS))[-1].response
        output = {"type": "function_call_output", "call_id": called.output[0].call_id, "output": "2"}
        after = (await answer(connection, previous_response_id=called.id, input=[output], tools=TOOLS))[-1]
    assert [item.type for item in after.response.output] == ["message"]
    assert after.response.usage.input_tokens_details.cached_tokens >= called.usage.total_tokens - 1
