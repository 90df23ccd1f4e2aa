"""What an answer may be, as a grammar for SGLang's grammar back end: a JSON Schema, calls of tools, or either.

    text with a schema          the schema
    a call is required          tags of the calls, at least one
    strict tools, or one call   text, in which a call's tag lets only its schema follow
    both text and calls         the schema, or tags of the calls

The tags are those of SGLang's detectors, so that the model calls in its own words and its parser reads them.
Importing this module imports SGLang.
"""

from __future__ import annotations

import json
from typing import Any

import xgrammar
from sglang.srt.constrained.json_schema_validation import validate_xgrammar_json_schema
from sglang.srt.function_call.function_call_parser import FunctionCallParser
from sglang.srt.function_call.utils import get_json_schema_constraint

from engine.answers import Form
from engine.contract import RequestRefused
from engine.splitting import choice_of, tools_of


def constraint(form: Form, parser: str | None) -> dict[str, str]:
    """Return what SGLang's sampling parameters must say about an answer of this form, {} for nothing.

    `parser`: SGLang's name of the parser of calls.
    """
    if not form.calls or parser is None:
        return {"json_schema": form.schema} if form.schema else {}
    tools = tools_of(form)
    detector = FunctionCallParser(tools, parser)
    if not detector.owns_tool_format():
        if not form.must_call:
            return {"json_schema": form.schema} if form.schema else {}
        return {"json_schema": json.dumps(get_json_schema_constraint(tools, choice_of(form), form.several))}
    if not (form.must_call or form.schema or not form.several or any(t.function.strict for t in tools)):
        return {}
    return {"structural_tag": json.dumps({"type": "structural_tag", "format": _format(form, detector)})}


def check(form: Form, parser: str | None) -> None:
    """Raise RequestRefused, which names the field, if a schema cannot be kept."""
    if form.schema:
        _check_schema(json.loads(form.schema), "schema")
    if not form.calls:
        return
    if parser is None:
        raise RequestRefused(
            "no parser is known for this model's calls; name one as tool_call_parser in a profile",
            "tools",
        )
    for index, tool in enumerate(tools_of(form)):
        _check_schema(tool.function.parameters or {}, f"tools[{index}].parameters")


def _check_schema(schema: Any, field: str) -> None:
    try:
        validate_xgrammar_json_schema(schema)
        xgrammar.Grammar.from_json_schema(json.dumps(schema))
    except (ValueError, RuntimeError) as error:  # UnsupportedJSONSchemaFeature is a ValueError
        reason = (
            str(error).strip().splitlines()[0].rpartition(".cc:")[2].partition(": ")[2] or str(error).strip()
        )
        raise RequestRefused(f"not a JSON Schema that can be kept: {reason}", field) from None


def _format(form: Form, detector: FunctionCallParser) -> dict[str, Any]:
    info = detector.detector.structure_info()
    tags, triggers = [], []
    for tool in detector.tools:
        words = info(tool.function.name)
        strict = bool(tool.function.strict) or form.must_call
        schema = (tool.function.parameters or {}) if strict else {"type": "object"}
        content = {"type": "json_schema", "json_schema": schema}
        tags.append({"type": "tag", "begin": words.begin, "content": content, "end": words.end})
        triggers.append(words.trigger)
    calls = {"tags": tags, "at_least_one": True, "stop_after_first": not form.several}
    if form.must_call:
        return {"type": "tags_with_separator", "separator": "\n", **calls}
    if form.schema:
        text = {"type": "json_schema", "json_schema": json.loads(form.schema)}
        return {"type": "or", "elements": [text, {"type": "tags_with_separator", "separator": "\n", **calls}]}
    return {"type": "triggered_tags", "triggers": sorted(set(triggers)), **calls, "at_least_one": False}
