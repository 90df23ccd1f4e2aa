"""What the scripted engine says where the form of its answer leaves it no choice: calls, and JSON.

It calls each tool that the last message of the user names, or the first one if it has to call; arguments and other
values are the smallest that their schema allows.
"""

from __future__ import annotations

import json
import re
from typing import Any

from engine.answers import Choice, Form
from engine.contract import RequestRefused
from engine.tool_texts import with_calls

_SMALLEST: dict[str, Any] = {"string": "word", "integer": 1, "number": 1.5, "boolean": True, "null": None}
_KINDS = (*_SMALLEST, "object", "array")
_DEEPEST = 16


def planned(prompt: str, form: Form) -> str | None:
    """Return the whole answer, None if it is free. `prompt`: its text."""
    if form.calls:
        asked = prompt.rpartition("user\n")[2]
        tools = _tools(form)
        named = [tool for tool in tools if re.search(rf"\b{tool['name']}\b", asked)]
        wanted = (named or tools)[:1] if form.must_call else named if form.parallel else named[:1]
        if wanted and "<tool_response>" not in asked:
            return with_calls("", [(tool["name"], _json(tool.get("parameters") or {})) for tool in wanted])
    return _json(json.loads(form.schema)) if form.schema else None


def check(form: Form) -> None:
    """Raise RequestRefused, which names the field, if a schema is none."""
    if form.schema:
        _check(json.loads(form.schema), "schema")
    for index, tool in enumerate(_tools(form) if form.calls else ()):
        _check(tool.get("parameters") or {}, f"tools[{index}].parameters")


def _tools(form: Form) -> list[dict[str, Any]]:
    tools = [tool["function"] for tool in json.loads(form.tools)]
    return [tool for tool in tools if form.choice in set(Choice) or tool["name"] == form.choice]


def _check(schema: Any, field: str) -> None:
    kind = schema.get("type") if isinstance(schema, dict) else None
    if kind is not None and (not isinstance(kind, str) or kind not in _KINDS):
        raise RequestRefused(
            f"not a JSON Schema that can be kept: Unsupported type {json.dumps(kind)}", field
        )


def _json(schema: dict[str, Any]) -> str:
    return json.dumps(_smallest(schema, schema, 0), ensure_ascii=False)


def _smallest(schema: dict[str, Any], root: dict[str, Any], depth: int) -> Any:
    if depth > _DEEPEST:
        return None
    if "$ref" in schema:
        found: Any = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        return _smallest(found, root, depth + 1)
    for name in ("anyOf", "oneOf", "allOf"):
        if schema.get(name):
            return _smallest(schema[name][0], root, depth + 1)
    if "const" in schema or schema.get("enum"):
        return schema.get("const", (schema.get("enum") or [None])[0])
    kind = schema.get("type", "object")
    if kind == "array":
        return [_smallest(schema.get("items") or {}, root, depth + 1)] * max(1, schema.get("minItems", 1))
    if kind == "object":
        properties = schema.get("properties") or {}
        return {name: _smallest(inner, root, depth + 1) for name, inner in properties.items()}
    return _SMALLEST[kind]
