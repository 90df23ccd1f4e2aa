"""What a request says about the form of its answer, in both dialects: reasoning, tools, structure."""

from __future__ import annotations

import re
from typing import Any

import orjson

from chatserver.errors import BadRequest
from chatserver.wire.fields import Fields, wrong
from chatserver.wire.messages import MAX_CALLS

CHOICES = ("auto", "none", "required")
MAX_SCHEMA = 65_536
"""Bytes of one JSON Schema, characters of one description."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""`none` is without reasoning. The others are one and the same: the models served here know no levels."""
SUMMARIES = ("auto", "concise", "detailed")
"""Of reasoning. It is shown whole, which is more than any of them asks for: items have it as content."""
SWITCHES = ("thinking", "enable_thinking")
"""What chat templates call the switch that `thinking` is: DeepSeek's, and Qwen's."""


def chat_form(fields: Fields) -> dict[str, Any]:
    """Take the fields of the Chat Completions dialect; return keyword arguments of Params."""
    effort = _effort(fields, "reasoning_effort")
    thinking = _template_switch(fields, _thinking(fields))
    if thinking is not None and effort is not None and thinking is not (effort != "none"):
        raise BadRequest(
            f"reasoning_effort: expected it to agree with thinking, got {effort!r}", param="reasoning_effort"
        )
    return {
        "thinking": thinking if effort is None else effort != "none",
        **_tools(fields, "function"),
        "schema": _format(fields, "response_format", "json_schema"),
    }


def response_form(fields: Fields) -> tuple[dict[str, Any], dict[str, object]]:
    """Take the fields of the Responses dialect; return keyword arguments of Params, and what is echoed."""
    sent = {name: fields.peek(name) for name in ("tools", "tool_choice")}
    form = _tools(fields, None)
    echo: dict[str, object] = {name: value for name, value in sent.items() if value is not None}
    text = fields.take("text")
    if text is not None:
        inner = Fields(text, "text")
        if (shape := inner.peek("format")) is not None:
            echo["text"] = {"format": shape}
        form["schema"] = _format(inner, "format", None)
        inner.inert("verbosity", "medium", why="is not supported: the model's length is its own")
        inner.done()
    reasoning = fields.take("reasoning")
    if reasoning is not None:
        inner = Fields(reasoning, "reasoning")
        effort = _effort(inner, "effort")
        wished = [_word(inner, name, SUMMARIES) for name in ("summary", "generate_summary")]
        for name in ("context", "mode"):
            inner.inert(name, why="is not supported: the reasoning itself is shown")
        inner.done()
        if effort is not None:
            form["thinking"] = effort != "none"
        echo["reasoning"] = {"effort": effort, "summary": wished[0] or wished[1]}
    return form, echo


def _tools(fields: Fields, nested: str | None) -> dict[str, Any]:
    """Take `tools`, `tool_choice` and `parallel_tool_calls`. `nested`: where the dialect puts a tool's own fields."""
    tools = [
        _tool(value, fields.path(f"tools[{index}]"), nested)
        for index, value in enumerate(fields.items("tools", [], most=MAX_CALLS))
    ]
    names = [tool["function"]["name"] for tool in tools]
    for index, name in enumerate(names):
        if name in names[:index]:
            field = fields.path(f"tools[{index}].{nested + '.' if nested else ''}name")
            raise BadRequest(f"{field}: expected a name of its own, {name!r} is there twice", param=field)
    choice = _choice(fields, names, nested)
    return {
        "tools": orjson.dumps(tools).decode() if tools else "",
        "tool_choice": choice,
        "parallel_calls": fields.flag("parallel_tool_calls", True),
    }


def _tool(value: object, path: str, nested: str | None) -> dict[str, Any]:
    outer = Fields(value, path)
    kind = outer.take("type")
    if kind != "function":
        raise wrong(
            f"{path}.type", "function: the server runs no tools of its own", kind, code="unsupported_value"
        )
    fields = Fields(outer.take(nested), f"{path}.{nested}") if nested else outer
    name = fields.text("name")
    if not _NAME.fullmatch(name):
        raise wrong(fields.path("name"), "1 to 64 letters, digits, _ and -", name)
    function: dict[str, Any] = {"name": name}
    if (description := fields.text("description", None, longest=MAX_SCHEMA)) is not None:
        function["description"] = description
    parameters = _schema(fields, "parameters")
    function["parameters"] = parameters or {"type": "object", "properties": {}}
    if fields.flag("strict"):
        function["strict"] = True
    fields.done()
    outer.done()
    return {"type": "function", "function": function}


def _choice(fields: Fields, names: list[str], nested: str | None) -> str:
    """Take `tool_choice`; return auto, none, required, or the name of a tool."""
    path, value = fields.path("tool_choice"), fields.take("tool_choice")
    if value is None:
        return "auto"
    if isinstance(value, str):
        if value not in CHOICES:
            raise wrong(path, f"{', '.join(CHOICES)}, or a function", value)
        if value == "required" and not names:
            raise BadRequest(f"{path}: expected tools beside it, got none", param=path)
        return value
    outer = Fields(value, path)
    kind = outer.take("type")
    if kind != "function":
        raise wrong(f"{path}.type", "function", kind, code="unsupported_value")
    inner = Fields(outer.take(nested), f"{path}.{nested}") if nested else outer
    name = inner.text("name")
    if name not in names:
        raise wrong(inner.path("name"), "the name of one of tools", name)
    if name in CHOICES:
        raise wrong(inner.path("name"), f"a name other than {', '.join(CHOICES)}", name)
    inner.done()
    outer.done()
    return name


def _format(fields: Fields, name: str, nested: str | None) -> str:
    """Take the format of the text; return its JSON Schema, "" for free text."""
    path, value = fields.path(name), fields.take(name)
    if value is None:
        return ""
    outer = Fields(value, path)
    kind = outer.take("type")
    if kind == "text":
        outer.done()
        return ""
    if kind == "json_object":
        outer.done()
        return '{"type":"object"}'
    if kind != "json_schema":
        raise wrong(f"{path}.type", "text, json_object or json_schema", kind)
    inner = Fields(outer.take(nested), f"{path}.{nested}") if nested else outer
    label = inner.text("name")
    if not _NAME.fullmatch(label):
        raise wrong(inner.path("name"), "1 to 64 letters, digits, _ and -", label)
    inner.text("description", None, longest=MAX_SCHEMA)
    inner.flag("strict")  # answers always keep to the schema
    schema = _schema(inner, "schema")
    if schema is None:
        raise wrong(inner.path("schema"), "a JSON Schema", None, code="missing_required_parameter")
    inner.done()
    outer.done()
    return orjson.dumps(schema).decode()


def _schema(fields: Fields, name: str) -> dict[str, Any] | None:
    """Take a JSON Schema as it is; the engine's grammar says whether it can be kept."""
    path, value = fields.path(name), fields.take(name)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise wrong(path, "a JSON Schema: an object", value, code="invalid_type")
    size = len(orjson.dumps(value))
    if size > MAX_SCHEMA:
        raise BadRequest(f"{path}: expected at most {MAX_SCHEMA} bytes, got {size}", param=path)
    return value


def _effort(fields: Fields, name: str) -> str | None:
    return _word(fields, name, EFFORTS)


def _word(fields: Fields, name: str, words: tuple[str, ...]) -> str | None:
    value = fields.take(name)
    if value is not None and (not isinstance(value, str) or value not in words):
        raise wrong(fields.path(name), f"one of {', '.join(words)}", value)
    return value


def _thinking(fields: Fields) -> bool | None:
    """Take DeepSeek's `thinking`."""
    value = fields.take("thinking")
    if value is None:
        return None
    inner = Fields(value, "thinking")
    kind = inner.take("type")
    inner.done()
    if kind not in ("enabled", "disabled"):
        raise wrong("thinking.type", "enabled or disabled", kind)
    return kind == "enabled"


def _template_switch(fields: Fields, thinking: bool | None) -> bool | None:
    """Take `chat_template_kwargs`, as vLLM's and SGLang's clients send it; return what it and `thinking` say."""
    value = fields.take("chat_template_kwargs")
    if value is None:
        return thinking
    inner = Fields(value, "chat_template_kwargs")
    for name in SWITCHES:
        if inner.peek(name) is None:
            continue
        said = inner.flag(name)
        if thinking is not None and said is not thinking:
            raise wrong(inner.path(name), "what else says whether to think to agree with it", said)
        thinking = said
    inner.done(
        f"is not supported: expected {' or '.join(SWITCHES)}, which is all that a request says to a template"
    )
    return thinking
