"""What is asked of SGLang's grammar: how many calls an answer may make."""

import json

import pytest

from engine.answers import Form
from engine.grammars import constraint

TOOLS = json.dumps(
    [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}, "strict": True}}]
)


@pytest.mark.parametrize(
    ("choice", "parallel", "one"),
    [
        ("required", True, False),
        ("required", False, True),
        ("weather", True, True),
        ("auto", True, False),
        ("auto", False, True),
    ],
)
def test_a_tool_chosen_by_name_is_called_once(choice, parallel, one):
    """As OpenAI's API does, whatever `parallel_tool_calls` says; the others call once only if it says so."""
    asked = constraint(Form(tools=TOOLS, choice=choice, parallel=parallel), "qwen25")
    assert json.loads(asked["structural_tag"])["format"]["stop_after_first"] is one
