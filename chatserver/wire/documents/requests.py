"""Schemas of the requests that generate."""

from __future__ import annotations

from chatserver.wire import input_tokens
from chatserver.wire.documents.pieces import FLAG, METADATA, TEXT, WHOLE, Schema, messages, or_null, record
from chatserver.wire.form import EFFORTS


def request_schemas() -> dict[str, Schema]:
    """Return the schemas of the requests that generate, and of what is asked about them."""
    conversation = record(
        "id", id=TEXT, parent=or_null({**TEXT, "description": "extension: branch under this item"})
    )
    policy = record(
        "type",
        type={"type": "string", "enum": ["auto", "retention_ratio"]},
        retention_ratio={"type": "number", "minimum": 0.1, "maximum": 1.0, "default": 0.7},
        token_limits=record("", post_instructions={**WHOLE, "minimum": 1}),
        cut_inside={**FLAG, "description": "extension: one too long message may lose its middle"},
        compaction={**FLAG, "description": "extension: what a cut drops is summarised in idle time"},
    )
    response = _response(conversation, policy)
    return {
        "ChatCompletionRequest": record(
            "model messages",
            model=TEXT,
            messages=messages(10_000),
            max_tokens=WHOLE,
            max_completion_tokens=WHOLE,
            stream_options=record("", include_usage=FLAG),
            thinking=record("type", type={"type": "string", "enum": ["enabled", "disabled"]}),
            reasoning_effort=_effort(),
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


def _response(conversation: Schema, policy: Schema) -> Schema:
    return record(
        "",
        model=TEXT,
        input={"oneOf": [TEXT, messages(10_000)]},
        instructions=TEXT,
        previous_response_id=TEXT,
        conversation={"oneOf": [TEXT, conversation]},
        store={"type": "boolean", "default": True},
        background=FLAG,
        truncation={"oneOf": [{"type": "string", "enum": ["auto", "disabled"]}, policy]},
        max_output_tokens=WHOLE,
        reasoning=record("", effort=_effort()),
        **{
            "continue": {
                **TEXT,
                "description": "extension: go on with the answer of this response, which was stopped or cut off; "
                "with it only model, max_output_tokens, metadata, stream, background and labels",
            }
        },
        **_sampling(),
    )


def _effort() -> Schema:
    return {
        "type": "string",
        "enum": list(EFFORTS),
        "description": "none: without reasoning; the others are one and the same",
    }


def _sampling() -> Schema:
    return {
        "temperature": {"type": "number", "minimum": 0, "maximum": 2, "description": "default: the model's"},
        "top_p": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 1,
            "description": "default: the model's",
        },
        "top_k": {"type": "integer", "minimum": -1, "default": -1, "description": "extension"},
        "seed": WHOLE,
        "stop": {"oneOf": [TEXT, {"type": "array", "items": TEXT, "maxItems": 4}]},
        "presence_penalty": {"type": "number", "minimum": -2, "maximum": 2, "default": 0},
        "frequency_penalty": {"type": "number", "minimum": -2, "maximum": 2, "default": 0},
        "ignore_eos": {"type": "boolean", "default": False, "description": "extension"},
        "metadata": METADATA,
        "user": TEXT,
        "safety_identifier": TEXT,
        "prompt_cache_key": TEXT,
        "stream": FLAG,
        "n": {
            "type": "integer",
            "minimum": 1,
            "maximum": 8,
            "default": 1,
            "description": "answers to one input",
        },
    }
