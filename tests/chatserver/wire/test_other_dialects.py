"""Fields of other servers' dialects: taken where this server has what they mean, refused by name where it has not."""

from __future__ import annotations

import pytest

from chatserver.wire import chat_completions, responses
from tests.chatserver.wire.refusals import refusal

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def asked(**more):
    return chat_completions.parse(CHAT | more).params


@pytest.mark.parametrize(
    ("kwargs", "thinking"),
    [
        ({"thinking": True}, True),
        ({"enable_thinking": False}, False),
        ({"thinking": True, "enable_thinking": True}, True),
        ({"thinking": None}, None),
        ({"other": None}, None),
        ({}, None),
        (None, None),
    ],
)
def test_a_template_is_told_whether_to_think(kwargs, thinking):
    """As vLLM's and SGLang's clients say it; it counts as thinking does, and may stand beside it."""
    assert asked(chat_template_kwargs=kwargs).thinking is thinking
    assert asked(chat_template_kwargs=kwargs).tell_reasoning is (thinking is True)
    if thinking is not None:
        word = {"type": "enabled" if thinking else "disabled"}
        effort = "high" if thinking else "none"
        assert asked(chat_template_kwargs=kwargs, thinking=word, reasoning_effort=effort).thinking is thinking


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"chat_template_kwargs": {"thinking": "yes"}}, "chat_template_kwargs.thinking"),
        ({"chat_template_kwargs": {"thinking": True, "custom": 1}}, "chat_template_kwargs.custom"),
        ({"chat_template_kwargs": [1]}, "chat_template_kwargs"),
        (
            {"chat_template_kwargs": {"thinking": True, "enable_thinking": False}},
            "chat_template_kwargs.enable_thinking",
        ),
        (
            {"chat_template_kwargs": {"thinking": True}, "thinking": {"type": "disabled"}},
            "chat_template_kwargs.thinking",
        ),
        ({"chat_template_kwargs": {"thinking": True}, "reasoning_effort": "none"}, "reasoning_effort"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"repetition_penalty": 0.001}, "repetition_penalty"),
        ({"repetition_penalty": 2.1}, "repetition_penalty"),
        ({"repetition_penalty": "1"}, "repetition_penalty"),
    ],
)
def test_what_is_not_meant_so_is_named(more, field):
    assert refusal(chat_completions.parse, CHAT | more).param == field


def test_repeating_is_penalised_in_both_dialects():
    """1 is none of it, also where nothing or null is said."""
    assert asked(repetition_penalty=1.3).repetition_penalty == 1.3
    assert asked().repetition_penalty == asked(repetition_penalty=None).repetition_penalty == 1.0
    assert responses.parse({"input": "x", "repetition_penalty": 2}).params.repetition_penalty == 2.0


def test_a_summary_of_reasoning_is_a_wish():
    """It is repeated, and switches nothing: the reasoning is told whole."""
    for name in ("summary", "generate_summary"):
        for word in ("auto", "concise", "detailed", None):
            params = responses.parse({"input": "x", "reasoning": {name: word}}).params
            assert params.thinking is None and params.echo["reasoning"] == {"effort": None, "summary": word}
        body = {"input": "x", "reasoning": {name: "long", "effort": "low"}}
        assert refusal(responses.parse, body).param == f"reasoning.{name}"
    params = responses.parse({"input": "x", "reasoning": {"effort": "low", "summary": "auto"}}).params
    assert params.thinking is True and params.echo["reasoning"] == {"effort": "low", "summary": "auto"}
