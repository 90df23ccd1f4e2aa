"""Schemas of messages as they are sent, and of items as they are told."""

from __future__ import annotations

from chatserver.domain.logprob import LEAST, MOST
from chatserver.wire.documents.pieces import (
    FLAG,
    ROLE,
    TEXT,
    WHOLE,
    Schema,
    or_null,
    record,
    ref,
    token_logprobs,
)
from chatserver.wire.messages import MAX_CALL_ID, MAX_CALLS, MAX_NAME, MAX_PARTS, MAX_TEXT, TEXT_PARTS

_LONG: Schema = {"type": "string", "maxLength": MAX_TEXT}
_CALL_ID: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_CALL_ID}
_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_NAME}
_ARGUMENTS: Schema = {**_LONG, "description": "JSON as the model wrote it"}
_STATUS: Schema = {"type": "string", "enum": ["in_progress", "completed", "incomplete"]}
_NOTHING: Schema = {"type": "array", "maxItems": 0}


def item_schemas() -> dict[str, Schema]:
    """Return the schemas by name."""
    return _sent() | _told() | _parts()


def call_schema(**more: Schema) -> Schema:
    """Return the schema of a tool call in the Chat Completions dialect."""
    function = record("name arguments", name=_NAME, arguments=_ARGUMENTS)
    return record("id type function", id=_CALL_ID, type={"const": "function"}, function=function, **more)


def _sent() -> dict[str, Schema]:
    part = record("type text", type={"type": "string", "enum": list(TEXT_PARTS)}, text=_LONG)
    parts: Schema = {"type": "array", "items": part, "maxItems": MAX_PARTS}
    content: Schema = {"oneOf": [_LONG, parts]}
    calls: Schema = {"type": "array", "items": call_schema(), "maxItems": MAX_CALLS}
    kinds = ("InputMessage", "ReasoningItem", "FunctionCallItem", "InputFunctionCallOutput")
    return {
        "ChatMessage": record(
            "role",
            role={"type": "string", "enum": [*ROLE["enum"], "tool"]},
            content=or_null(content),
            reasoning_content=or_null({**_LONG, "description": "of an answer that is given back"}),
            tool_calls=or_null(calls),
            prefix={**FLAG, "description": "of the last message, an assistant's: the answer goes on from it"},
            tool_call_id={**_CALL_ID, "description": "of a tool's message: the call that it answers"},
        ),
        "InputItem": {
            "oneOf": [ref(name) for name in kinds],
            "description": "a message, or an item of an earlier answer, given back",
        },
        "InputMessage": record("role content", type={"const": "message"}, role=ROLE, content=content),
        "InputFunctionCallOutput": record(
            "type call_id output", type={"const": "function_call_output"}, call_id=_CALL_ID, output=content
        ),
    }


def _told() -> dict[str, Schema]:
    kinds = ("MessageItem", "ReasoningItem", "FunctionCallItem", "FunctionCallOutputItem", "CompactionItem")
    told: Schema = {"oneOf": [ref("OutputText"), ref("InputText")]}
    thought: Schema = {"type": "array", "items": ref("ReasoningText")}
    summary: Schema = {
        "type": "array",
        "items": record("type text", type={"const": "summary_text"}, text=TEXT),
    }
    compaction = _item(
        "compaction", "summary usage", summary=summary, usage=ref("ResponseUsage"), **_no_secret()
    )
    return {
        "Item": {"oneOf": [ref(name) for name in kinds]},
        "MessageItem": _item("message", "role content", role=ROLE, content={"type": "array", "items": told}),
        "ReasoningItem": _item("reasoning", "content", content=thought, summary=_NOTHING, **_no_secret()),
        "FunctionCallItem": _item(
            "function_call", "call_id name arguments", call_id=_CALL_ID, name=_NAME, arguments=_ARGUMENTS
        ),
        "FunctionCallOutputItem": _item("function_call_output", "call_id output", call_id=TEXT, output=_LONG),
        "CompactionItem": {
            **compaction,
            "description": "an extension: what stands for items that a cut dropped",
        },
    }


def _parts() -> dict[str, Schema]:
    token: dict[str, Schema] = {
        "token": {**TEXT, "description": "part of a character: \\x and its bytes; a special token: empty"},
        "bytes": {"type": "array", "items": {**WHOLE, "minimum": 0, "maximum": 255}},
        "logprob": {"type": "number", "minimum": LEAST, "maximum": 0},
    }
    top: Schema = {"type": "array", "maxItems": MOST, "items": record("token bytes logprob", **token)}
    return {
        "TokenLogprob": record("token bytes logprob top_logprobs", **token, top_logprobs=top),
        "InputText": record("type text", type={"const": "input_text"}, text=TEXT),
        "OutputText": record(
            "type text annotations logprobs",
            type={"const": "output_text"},
            text=TEXT,
            annotations=_NOTHING,
            logprobs=token_logprobs(),
        ),
        "ReasoningText": record("type text", type={"const": "reasoning_text"}, text=TEXT),
    }


def _item(kind: str, required: str, **fields: Schema) -> Schema:
    names: Schema = {"type": "array", "items": TEXT}
    return record(
        f"type {required}",
        id=TEXT,
        type={"const": kind},
        status=_STATUS,
        **fields,
        created_at=WHOLE,
        parent=or_null({**TEXT, "description": "the item before it in the tree (an extension)"}),
        response_id=or_null({**TEXT, "description": "the response that wrote it (an extension)"}),
        siblings={**names, "description": "with siblings=true: what stands beside it"},
        children={**names, "description": "the same, under the last item of the branch"},
    )


def _no_secret() -> dict[str, Schema]:
    return {"encrypted_content": {"description": "empty: nothing is encrypted", "enum": ["", None]}}
