"""Schemas of the requests that generate."""

from __future__ import annotations

from chatserver.domain.logprob import MOST
from chatserver.wire import input_tokens
from chatserver.wire import sampling as bounds
from chatserver.wire.documents.pieces import (
    FLAG,
    METADATA,
    TEXT,
    WHOLE,
    Schema,
    input_items,
    messages,
    or_null,
    record,
)
from chatserver.wire.form import CHOICES, EFFORTS, SUMMARIES, SWITCHES
from chatserver.wire.logprobs import INCLUDE
from chatserver.wire.messages import MAX_MESSAGES, MAX_TEXT
from chatserver.wire.responses import HARMLESS_INCLUDES, MAX_ID

OUTPUT: Schema = {**WHOLE, "minimum": 1, "maximum": bounds.MAX_OUTPUT, "description": "tokens"}
MODEL: Schema = {"type": "string", "maxLength": bounds.MAX_MODEL}
NO: Schema = {"const": False}
TOP_LOGPROBS: Schema = {**WHOLE, "minimum": 0, "maximum": MOST, "default": 0}
IDENTIFIER: Schema = {"type": "string", "maxLength": MAX_ID}


def request_schemas() -> dict[str, Schema]:
    """Return the schemas of the requests that generate, and of what is asked about them."""
    conversation = record(
        "id",
        id=IDENTIFIER,
        parent=or_null({**IDENTIFIER, "description": "extension: branch under this item"}),
    )
    policy = record(
        "type",
        type={"type": "string", "enum": ["auto", "retention_ratio"]},
        retention_ratio={"type": "number", "minimum": 0.1, "maximum": 1.0, "default": 0.7},
        token_limits=record("", post_instructions=OUTPUT),
        cut_inside={**FLAG, "description": "extension: one too long message may lose its middle"},
        compaction={**FLAG, "description": "extension: what a cut drops is summarised in idle time"},
    )
    truncation: Schema = {"oneOf": [{"type": "string", "enum": ["auto", "disabled"]}, policy]}
    response = _response(conversation, truncation)
    return {
        "ChatCompletionRequest": record(
            "model messages",
            model=MODEL,
            messages=messages(MAX_MESSAGES),
            max_tokens=OUTPUT,
            max_completion_tokens=OUTPUT,
            stream_options=record("", include_usage=FLAG, include_obfuscation=NO),
            return_progress={
                **FLAG,
                "description": "extension, with stream: chunks that say how far the prompt is",
            },
            thinking=record("type", type={"type": "string", "enum": ["enabled", "disabled"]}),
            reasoning_effort=_effort(),
            chat_template_kwargs=record(
                "",
                **{
                    name: {**FLAG, "description": "as thinking, by its name in templates"}
                    for name in SWITCHES
                },
            ),
            truncation={**truncation, "description": "extension; compaction only with X-Conversation-Id"},
            tools=_tools(nested=True),
            tool_choice=_choice(nested=True),
            response_format=_format(nested=True),
            logprobs={**FLAG, "description": "log-probabilities of the content's tokens"},
            top_logprobs={**TOP_LOGPROBS, "description": "with logprobs"},
            **_sampling(),
        ),
        "ResponseRequest": response,
        "InputTokensRequest": record(
            "",
            **{
                name: schema for name, schema in response["properties"].items() if name in input_tokens.FIELDS
            },
        ),
    }


def _response(conversation: Schema, truncation: Schema) -> Schema:
    return record(
        "",
        model=MODEL,
        input={"oneOf": [TEXT, input_items(MAX_MESSAGES)]},
        instructions={"type": "string", "maxLength": MAX_TEXT},
        previous_response_id=IDENTIFIER,
        conversation={"oneOf": [IDENTIFIER, conversation]},
        store={"type": "boolean", "default": True},
        background=FLAG,
        include={
            "type": "array",
            "items": {"type": "string", "enum": [INCLUDE, *sorted(HARMLESS_INCLUDES)]},
            "maxItems": 20,
            "description": f"{INCLUDE}: log-probabilities of the text's tokens; all others ask for parts that no "
            "answer here has",
        },
        top_logprobs={**TOP_LOGPROBS, "description": "with " + INCLUDE},
        stream_options=record("", include_obfuscation=NO),
        max_tool_calls={**WHOLE, "minimum": 0, "maximum": 1_000_000},
        reasoning=record("", effort=_effort(), summary=_summary(), generate_summary=_summary()),
        truncation=truncation,
        max_output_tokens=OUTPUT,
        tools=_tools(nested=False),
        tool_choice=_choice(nested=False),
        text=record("", format=_format(nested=False)),
        **{
            "continue": {
                **IDENTIFIER,
                "minLength": 1,
                "description": "extension: go on with the answer of this response, which was stopped or cut off; "
                "with it only model, max_output_tokens, metadata, stream, background and labels",
            }
        },
        **_sampling(),
    )


def _function() -> dict[str, Schema]:
    """Return the fields of a tool, wherever a dialect puts them."""
    name: Schema = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
    schema: Schema = {"type": "object", "description": "a JSON Schema, at most 65536 bytes"}
    return {"name": name, "description": TEXT, "parameters": schema, "strict": FLAG}


def _tools(nested: bool) -> Schema:
    kind: Schema = {"const": "function"}
    if nested:
        tool = record("type function", type=kind, function=record("name", **_function()))
    else:
        tool = record("type name", type=kind, **_function())
    return {"type": "array", "maxItems": 128, "items": tool}


def _choice(nested: bool) -> Schema:
    name = record("name", name=TEXT)
    kind: Schema = {"const": "function"}
    one = (
        record("type function", type=kind, function=name)
        if nested
        else record("type name", type=kind, name=TEXT)
    )
    return {"oneOf": [{"type": "string", "enum": list(CHOICES)}, one]}


def _format(nested: bool) -> Schema:
    fields: dict[str, Schema] = {
        "name": TEXT,
        "description": TEXT,
        "schema": {"type": "object"},
        "strict": FLAG,
    }
    kind: Schema = {"type": "string", "enum": ["text", "json_object", "json_schema"]}
    return (
        record("type", type=kind, json_schema=record("name schema", **fields))
        if nested
        else record("type", type=kind, **fields)
    )


def _effort() -> Schema:
    return {
        "type": "string",
        "enum": list(EFFORTS),
        "description": "none: without reasoning; the others are one and the same",
    }


def _summary() -> Schema:
    return or_null(
        {
            "type": "string",
            "enum": list(SUMMARIES),
            "description": "taken as a wish to see the reasoning, which is shown in full, as content; nothing is "
            "summarised, so that the items' summary stays empty",
        }
    )


def _sampling() -> Schema:
    stop: Schema = {"type": "string", "minLength": 1, "maxLength": bounds.MAX_STOP_LENGTH}
    label: Schema = {"type": "string", "maxLength": bounds.MAX_LABEL}
    return {
        "temperature": {"type": "number", "minimum": 0, "maximum": 2, "description": "default: the model's"},
        "top_p": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 1,
            "description": "default: the model's",
        },
        "top_k": {"type": "integer", "minimum": -1, "maximum": 1_000_000, "description": "extension"},
        "seed": {**WHOLE, "minimum": -(2**63), "maximum": 2**63 - 1},
        "stop": {"oneOf": [stop, {"type": "array", "items": stop, "maxItems": bounds.MAX_STOPS}]},
        "min_p": {"type": "number", "minimum": 0, "maximum": 1, "default": 0, "description": "extension"},
        "logit_bias": {
            "type": "object",
            "maxProperties": 300,
            "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
            "propertyNames": {"pattern": "^[0-9]{1,9}$"},
        },
        "presence_penalty": {"type": "number", "minimum": -2, "maximum": 2, "default": 0},
        "frequency_penalty": {"type": "number", "minimum": -2, "maximum": 2, "default": 0},
        "repetition_penalty": {
            "type": "number",
            "minimum": bounds.LEAST_REPETITION,
            "maximum": 2,
            "default": 1,
            "description": "extension: divides the logits of tokens that the answer has already",
        },
        "ignore_eos": {"type": "boolean", "default": False, "description": "extension"},
        "metadata": METADATA,
        "parallel_tool_calls": FLAG,
        "user": label,
        "safety_identifier": label,
        "prompt_cache_key": label,
        "stream": FLAG,
        "n": {
            "type": "integer",
            "minimum": 1,
            "maximum": bounds.MAX_ANSWERS,
            "default": 1,
            "description": "answers to one input",
        },
    }
