"""What clients may send: each wrong field is named, each harmless default is taken, nothing else gets through."""

from __future__ import annotations

import orjson
import pytest

from chatserver.domain.item import Message
from chatserver.domain.response import Truncation
from chatserver.wire import chat_completions, frames, lists, responses
from chatserver.wire.commands import Place
from tests.chatserver.wire.refusals import refusal

MESSAGES = [{"role": "user", "content": "Hi"}]
CHAT = {"model": "tiny", "messages": MESSAGES}


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        ({"model": 5}, "model", "model: expected a string, got 5"),
        ({"model": None}, "model", "model: expected a value, got null"),
        ({"messages": []}, "messages", "messages: expected at least one message, got a list of 0"),
        ({"messages": "x"}, "messages", "messages: expected a list, got 'x'"),
        ({"messages": [5]}, "messages[0]", "messages[0]: expected an object, got 5"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", None),
        ({"messages": [{"role": "cat", "content": "x"}]}, "messages[0].role", None),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", None),
        ({"messages": [{"role": "user", "content": "x", "name": "a"}]}, "messages[0].name", None),
        (
            {"messages": [*MESSAGES, {"role": "user", "content": [{"type": "text", "text": 5}]}]},
            "messages[1].content[0].text",
            "messages[1].content[0].text: expected a string, got 5",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0].type",
            None,
        ),
        ({"messages": [{"role": "user", "content": "x" * 1_000_001}]}, "messages[0].content", None),
        ({"temperature": 3}, "temperature", "temperature: expected a number from 0 to 2, got 3"),
        ({"temperature": 10**400}, "temperature", None),
        ({"temperature": True}, "temperature", "temperature: expected a number, got true"),
        ({"top_p": 0}, "top_p", None),
        ({"max_tokens": 0}, "max_tokens", None),
        ({"max_tokens": 1.5}, "max_tokens", None),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_completion_tokens", None),
        ({"stop": ["a"] * 5}, "stop", None),
        ({"stop": [""]}, "stop[0]", None),
        ({"seed": "x"}, "seed", None),
        ({"stream": "yes"}, "stream", "stream: expected true or false, got 'yes'"),
        ({"stream_options": {"other": 1}}, "stream_options.other", None),
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata", None),
        ({"metadata": {"k": 5}}, "metadata.k", None),
        ({"metadata": {"k": "x" * 513}}, "metadata.k", None),
        ({"n": 0}, "n", None),
        ({"n": 9}, "n", None),
        ({"n": True}, "n", None),
        ({"logprobs": 1}, "logprobs", None),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", None),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs", None),
        ({"top_logprobs": 1}, "top_logprobs", "top_logprobs: expected logprobs to be true with it"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", None),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", None),
        ({"tool_choice": "required"}, "tool_choice", None),
        ({"tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice.function.name", None),
        ({"response_format": {"type": "grammar"}}, "response_format.type", None),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
            None,
        ),
        ({"thinking": {"type": "much"}}, "thinking.type", None),
        ({"reasoning_effort": "huge"}, "reasoning_effort", None),
        ({"logit_bias": {"x": 1}}, "logit_bias", None),
        ({"logit_bias": {"7": 101}}, "logit_bias.7", None),
        ({"min_p": 2}, "min_p", None),
        ({"thinking": {"type": "enabled"}, "reasoning_effort": "none"}, "reasoning_effort", None),
        ({"modle": 1}, "modle", "Unknown parameter: 'modle'. Did you mean 'model'?"),
        ({"temprature": 1}, "temprature", "Unknown parameter: 'temprature'. Did you mean 'temperature'?"),
        ({"wings": 2}, "wings", "Unknown parameter: 'wings'."),
        (
            {"messages": [{"role": "user"}]},
            "messages[0].content",
            "Missing required parameter: 'messages[0].content'.",
        ),
        (
            {"messages": [{"content": "Hi"}]},
            "messages[0].role",
            "Missing required parameter: 'messages[0].role'.",
        ),
    ],
)
def test_chat_completions_name_the_field(change, param, message):
    error = refusal(chat_completions.parse, CHAT | change)
    assert error.param == param
    if message:
        assert error.message == message


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": 5}, "input"),
        ({"input": [{"role": "user", "content": 5}]}, "input[0].content"),
        ({"input": [MESSAGES[0], {"type": "function_call"}]}, "input[1].call_id"),
        ({"input": [{"type": "web_search_call"}]}, "input[0].type"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "5"}]}, "input[0].call_id"),
        ({"input": [MESSAGES[0], {"type": "function_call_output", "call_id": "c"}]}, "input[1].output"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": ""}]}]},
            "input[0].content[0].type",
        ),
        ({"input": [MESSAGES[0]] * 10_001}, "input"),
        ({"input": "x", "conversation": "c", "previous_response_id": "r"}, "previous_response_id"),
        ({"input": "x", "conversation": {"id": 5}}, "conversation.id"),
        ({"input": "x", "conversation": {"id": "c", "x": 5}}, "conversation.x"),
        ({"input": "x", "truncation": "sometimes"}, "truncation"),
        ({"input": "x", "truncation": {"type": "retention_ratio", "retention_ratio": 7}}, None),
        (
            {"input": "x", "truncation": {"type": "auto", "retention_ratio": 0.5}},
            "truncation.retention_ratio",
        ),
        ({"input": "x", "truncation": {"type": "auto", "cut_inside": 1}}, "truncation.cut_inside"),
        (
            {"input": "x", "truncation": {"type": "auto", "token_limits": {"post_instructions": 0}}},
            "truncation.token_limits.post_instructions",
        ),
        (
            {"input": "x", "truncation": {"type": "auto", "token_limits": {"pre": 1}}},
            "truncation.token_limits.pre",
        ),
        ({"input": "x", "background": True, "store": False}, "background"),
        ({"input": "x", "top_logprobs": 2}, "top_logprobs"),
        ({"input": "x", "include": ["message.output_text.logprobs"], "top_logprobs": 21}, "top_logprobs"),
        ({"continue": "resp_1", "include": ["message.output_text.logprobs"]}, "include[0]"),
        ({"continue": "resp_1", "top_logprobs": 2}, "top_logprobs"),
        ({"input": "x", "include": [[]]}, "include[0]"),
        (
            {"input": "x", "text": {"format": {"type": "json_schema", "name": "a b", "schema": {}}}},
            "text.format.name",
        ),
        ({"input": "x", "reasoning": {"effort": "huge"}}, "reasoning.effort"),
        (
            {"input": "x", "stream_options": {"include_obfuscation": True}},
            "stream_options.include_obfuscation",
        ),
        ({"input": "x", "prompt": {"id": "p"}}, "prompt"),
        ({"input": "x", "service_tier": "flex"}, "service_tier"),
    ],
)
def test_responses_name_the_field(body, param):
    error = refusal(responses.parse, body)
    assert param is None or error.param == param


def test_what_clients_send_by_default_is_taken():
    """Values that mean what the server does anyway."""
    chat_completions.parse(
        CHAT
        | {
            "n": 1,
            "user": "u",
            "safety_identifier": "s",
            "prompt_cache_key": "k",
            "prompt_cache_retention": "in_memory",
            "service_tier": "auto",
            "store": False,
            "parallel_tool_calls": True,
            "logprobs": False,
            "top_logprobs": None,
            "logit_bias": {},
            "tools": [],
            "tool_choice": "none",
            "response_format": {"type": "text"},
            "modalities": ["text"],
            "metadata": None,
            "stream_options": None,
            "thinking": {"type": "disabled"},
            "max_tokens": None,
        }
    )
    found = responses.parse(
        {
            "input": "x",
            "include": [],
            "tools": None,
            "tool_choice": "auto",
            "parallel_tool_calls": None,
            "text": {"format": {"type": "text"}, "verbosity": "medium"},
            "reasoning": {"effort": None, "summary": None},
            "store": None,
            "user": "u",
            "max_tool_calls": 3,
        }
    )
    assert found.store and found.params.echo["user"] == "u"


def test_log_probabilities_are_asked_for():
    """None asked for; each token's own; with the likeliest."""
    include = {"input": "x", "include": ["message.output_text.logprobs"]}
    assert chat_completions.parse(CHAT | {"top_logprobs": 0}).params.logprobs is None
    assert chat_completions.parse(CHAT | {"logprobs": True}).params.logprobs == 0
    assert chat_completions.parse(CHAT | {"logprobs": True, "top_logprobs": 20}).params.logprobs == 20
    assert responses.parse({"input": "x", "top_logprobs": 0}).params.logprobs is None
    assert responses.parse(include).params.logprobs == 0
    assert responses.parse(include | {"top_logprobs": 3}).params.logprobs == 3


def test_forms_of_input():
    """A string; easy messages; full items; what an answer gave back."""
    given_back = {
        "id": "msg_1",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "Yes", "annotations": [], "logprobs": []}],
    }
    found = responses.parse(
        {
            "input": [
                {"role": "developer", "content": "Be brief"},
                {
                    "type": "message",
                    "role": "user",
                    "content": [{"type": "input_text", "text": "A"}, {"type": "text", "text": "B"}],
                },
                given_back,
            ]
        }
    )
    assert found.messages == (
        Message("developer", "Be brief"),
        Message("user", "AB"),
        Message("assistant", "Yes"),
    )
    assert responses.parse({"input": "Hi"}).messages == (Message("user", "Hi"),)
    assert responses.parse({"conversation": "c"}).messages == ()
    chat = chat_completions.parse(
        CHAT
        | {
            "messages": [
                {"role": "assistant", "content": None, "tool_calls": None, "refusal": None},
                {"role": "user", "content": [{"type": "text", "text": "A"}]},
            ]
        }
    )
    assert chat.messages == (Message("assistant", ""), Message("user", "A"))


def test_places_and_policies():
    head = responses.parse({"conversation": {"id": "c"}, "input": "x"})
    assert head.conversation == "c" and head.parent is Place.HEAD
    assert responses.parse({"conversation": {"id": "c", "parent": "m"}}).parent == "m"
    assert responses.parse({"conversation": {"id": "c", "parent": None}, "input": "x"}).parent is None
    ratio = {"type": "retention_ratio", "retention_ratio": 0.5}
    params = responses.parse({"input": "x", "truncation": ratio}).params
    assert params.truncation is Truncation.RETENTION_RATIO and params.retention_ratio == 0.5
    assert responses.parse({"input": "x", "truncation": "auto"}).params.truncation is Truncation.AUTO
    limited = {**ratio, "token_limits": {"post_instructions": 900}, "cut_inside": True}
    params = responses.parse({"input": "x", "truncation": limited}).params
    assert (params.retention_ratio, params.post_instructions, params.cut_inside) == (0.5, 900, True)


def test_pages():
    page = lists.parse_page({"limit": "5", "order": "asc", "after": "x"})
    assert (page.limit, page.newest_first, page.after) == (5, False, "x")
    for query in (
        {"limit": "0"},
        {"limit": "101"},
        {"limit": "٣"},
        {"limit": "-1"},
        {"order": "x"},
        {"q": "x"},
        {"z": ""},
    ):
        refusal(lists.parse_page, query)


def test_frames():
    create = frames.parse(b'{"type":"response.create","stream_id":"a","idempotency_key":"k","input":"x"}')
    assert isinstance(create, frames.Create) and (create.stream_id, create.key) == ("a", "k")
    assert frames.parse(b'{"type":"response.attach","response_id":"r"}') == frames.Attach("r", -1, None)
    assert frames.parse(b'{"type":"response.cancel","response_id":"r","stream_id":"b"}') == frames.Cancel(
        "r", "b"
    )
    assert frames.parse(b'{"type":"input.typing","conversation_id":"c"}') == frames.Typing("c")
    for later in ("response.steer",):
        assert refusal(frames.parse, orjson.dumps({"type": later})).code == "not_supported"
    assert frames.stream_id_in(b'{"stream_id":"a","type":5}') == "a"
    assert frames.stream_id_in(b'{"stream_id":5}') is None
