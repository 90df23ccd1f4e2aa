"""Small pieces of JSON Schema that the documents are made of."""

from __future__ import annotations

from typing import Any

from chatserver.domain.logprob import KEPT
from chatserver.wire.fields import MAX_METADATA, MAX_METADATA_KEY, MAX_METADATA_VALUE

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}
METADATA: Schema = {
    "type": "object",
    "maxProperties": MAX_METADATA,
    "propertyNames": {"minLength": 1, "maxLength": MAX_METADATA_KEY},
    "additionalProperties": {"type": "string", "maxLength": MAX_METADATA_VALUE},
}
DAY: Schema = {"type": "string", "format": "date"}
ROLE: Schema = {"type": "string", "enum": ["system", "developer", "user", "assistant", "tool"]}


def ref(name: str) -> Schema:
    """Return a reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def record(required: str, **properties: Schema) -> Schema:
    """Return the schema of an object; `required`: names separated by spaces."""
    return {"type": "object", "properties": properties, "required": required.split()}


def or_null(schema: Schema) -> Schema:
    """Return the schema of a value that may be null."""
    return {"oneOf": [schema, {"type": "null"}]}


def numbers(count: int) -> Schema:
    """Return the schema of exactly `count` whole numbers."""
    return {"type": "array", "items": WHOLE, "minItems": count, "maxItems": count}


def list_of(schema: Schema) -> Schema:
    """Return the schema of one page of a list."""
    array = {"type": "array", "items": schema}
    return record("object data has_more", object=TEXT, data=array, first_id=TEXT, last_id=TEXT, has_more=FLAG)


def token_logprobs() -> Schema:
    """Return the schema of log-probabilities."""
    return {
        "type": "array",
        "items": ref("TokenLogprob"),
        "description": "of the text's tokens, if they were asked for: after temperature, before top_k and top_p. "
        f"Deltas have them all, an answer as a whole the first {KEPT}, alternatives counted; what another response "
        "began has none",
    }


def choice_logprobs() -> Schema:
    """Return the schema of a choice's log-probabilities."""
    return record("content refusal", content=token_logprobs(), refusal={"type": "null"})


def messages(most: int) -> Schema:
    """Return the schema of 1 to `most` messages in the Chat Completions dialect."""
    return {"type": "array", "minItems": 1, "maxItems": most, "items": ref("ChatMessage")}


def input_items(most: int) -> Schema:
    """Return the schema of up to `most` input items in the Responses dialect."""
    return {"type": "array", "maxItems": most, "items": ref("InputItem")}
