"""Small pieces of JSON Schema that the documents are made of."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}
METADATA: Schema = {
    "type": "object",
    "maxProperties": 16,
    "additionalProperties": {"type": "string", "maxLength": 512},
}
DAY: Schema = {"type": "string", "format": "date"}
ROLE: Schema = {"type": "string", "enum": ["system", "developer", "user", "assistant"]}


def ref(name: str) -> Schema:
    """Return a reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def record(required: str, **properties: Schema) -> Schema:
    """Return the schema of an object; `required`: names separated by spaces."""
    return {"type": "object", "properties": properties, "required": required.split()}


def or_null(schema: Schema) -> Schema:
    """Return the schema of a value that may be null."""
    return {"oneOf": [schema, {"type": "null"}]}


def list_of(schema: Schema) -> Schema:
    """Return the schema of one page of a list."""
    array = {"type": "array", "items": schema}
    return record("object data has_more", object=TEXT, data=array, first_id=TEXT, last_id=TEXT, has_more=FLAG)


def messages(most: int) -> Schema:
    """Return the schema of up to `most` input messages."""
    return {"type": "array", "maxItems": most, "items": ref("Message")}
