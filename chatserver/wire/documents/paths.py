"""The routes, each with what it takes and answers."""

from __future__ import annotations

import re

from chatserver.wire.conversations import MAX_ADDED, MAX_TITLE
from chatserver.wire.documents.answers import answers, unready
from chatserver.wire.documents.pieces import (
    DAY,
    FLAG,
    METADATA,
    TEXT,
    WHOLE,
    Schema,
    input_items,
    list_of,
    record,
    ref,
)
from chatserver.wire.lists import MAX_LIMIT
from chatserver.wire.responses import MAX_ID

PAGES = {
    "/docs": "This document as a page",
    "/docs/events": "What is streamed, as a page",
    "/docs/developers": "The page for app developers",
}
_TAGS = {
    "responses": "Responses",
    "conversations": "Conversations",
    "chat": "Chat Completions",
    "models": "Models",
    "usage": "Account",
}


def paths() -> dict[str, Schema]:
    """Return the operations of every path."""
    page = {
        "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": 20},
        "order": {"type": "string", "enum": ["asc", "desc"], "default": "desc"},
        "after": TEXT,
    }
    item, conversation, response = ref("Item"), ref("Conversation"), ref("Response")
    completion = {
        "post": _operation(
            "Answer a conversation that the client keeps",
            ref("ChatCompletion"),
            body=ref("ChatCompletionRequest"),
            events=True,
            also=(402, 404, 409),
        )
    }
    models = {"get": _operation("List the models", list_of(ref("Model")))}
    model = {"get": _operation("One model, by name or alias", ref("Model"))}
    found: dict[str, Schema] = {
        "/v1/responses": {
            "post": _operation(
                "Begin a response",
                response,
                body=ref("ResponseRequest"),
                events=True,
                also=(402, 404, 409),
            )
        },
        "/v1/responses/input_tokens": {
            "post": _operation(
                "How many tokens the prompt of such a request has, planned as the turn would be",
                record("object input_tokens", object={"const": "response.input_tokens"}, input_tokens=WHOLE),
                body=ref("InputTokensRequest"),
                also=(404, 409),
            )
        },
        "/v1/responses/{response_id}": {
            "get": _operation(
                "A response; with stream=true its events after a position, 204 if there are no more",
                response,
                events=True,
                stream=FLAG,
                starting_after={"type": "integer", "description": "Last-Event-ID wins over it"},
            ),
            "delete": _operation("Forget a response; its items stay", ref("Deleted"), also=(409,)),
        },
        "/v1/responses/{response_id}/cancel": {
            "post": _operation("Stop it and keep what was written", response)
        },
        "/v1/responses/{response_id}/input_items": {
            "get": _operation("What the model saw", list_of(item), **page)
        },
        "/v1/conversations": {
            "get": _operation(
                "List conversations by last change; with q (an extension) those with all its words in title, metadata "
                "or messages: a page may be short then, and the next one goes on behind last_id",
                list_of(conversation),
                also=(404,),  # `after` names none
                q={**TEXT, "maxLength": 200},
                **page,
            ),
            "post": _operation("Make a conversation", conversation, body=ref("ConversationRequest")),
        },
        "/v1/conversations/{conversation_id}": {
            "get": _operation("A conversation", conversation),
            "post": _operation(
                "Change metadata or title",
                conversation,
                body=record("", metadata=METADATA, title={**TEXT, "maxLength": MAX_TITLE}),
            ),
            "delete": _operation(
                "Remove it and all that belongs to it; `freed_tokens` of KV cache are free again (an extension)",
                ref("ConversationDeleted"),
                also=(409,),
            ),
        },
        "/v1/conversations/{conversation_id}/cache": {
            "get": _operation("How much of it is in the KV cache (an extension)", ref("Cache")),
            "delete": _operation(
                "Free what only it holds of the KV cache; it goes on (an extension)", ref("Freed")
            ),
        },
        "/v1/conversations/{conversation_id}/items": {
            "get": _operation(
                "Its items up to its head; extensions: up to `leaf`, of the branch that goes `through` an item (the "
                "head's, else the one that ends last), or of all branches (order asc: by depth). `siblings`: say of "
                "each item which ones stand under the same parent, and of the branch's last one its `children`",
                list_of(item),
                branches={"type": "string", "enum": ["head", "all"], "default": "head"},
                leaf=TEXT,
                through=TEXT,
                siblings={"type": "string", "enum": ["true", "false"], "default": "false"},
                **page,
            ),
            "post": _operation(
                "Append items",
                list_of(item),
                body=record("items", items={**input_items(MAX_ADDED), "minItems": 1}),
                also=(409,),
            ),
        },
        "/v1/conversations/{conversation_id}/items/{item_id}": {
            "get": _operation("One item", item),
            "delete": _operation(
                "Remove it and everything under it; extension: `freed_tokens` beside the conversation's fields",
                conversation,
                also=(409,),
            ),
        },
        "/v1/conversations/{conversation_id}/fork": {
            "post": _operation(
                "A new conversation that begins with a branch of this one (an extension)",
                conversation,
                body=record("", leaf=TEXT, metadata=METADATA),
            )
        },
        "/v1/usage": {
            "get": _operation(
                "What the tenant's keys used and what it cost (an extension)",
                ref("Usage"),
                start_date=DAY,
                end_date=DAY,
                group_by={**TEXT, "description": "some of key, model and day, separated by commas"},
            )
        },
        "/metrics": {
            "get": _operation(
                "Figures for Prometheus: of the engines, and of this web process",
                TEXT,
                content_type="text/plain",
            )
        },
        **_public(),
    }
    for prefix in ("/v1", "", "/beta"):
        found |= {
            f"{prefix}/chat/completions": completion,
            f"{prefix}/models": models,
            f"{prefix}/models/{{model}}": model,
        }
    return {path: _finished(path, operations) for path, operations in found.items()}


def _finished(path: str, operations: Schema) -> Schema:
    """Return the operations of a path with their ids and groups, and with the parameters in the path."""
    named = {
        method: {
            **operation,
            "operationId": re.sub(r"\W+", "_", f"{method}{path}").strip("_"),
            "tags": [_tag(path)],
        }
        for method, operation in operations.items()
    }
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    for operation in named.values() if names else ():
        operation["responses"] = {**operation["responses"], "404": {"$ref": "#/components/responses/404"}}
    identifier = {**TEXT, "maxLength": MAX_ID}
    given = [{"name": name, "in": "path", "required": True, "schema": identifier} for name in names]
    return {**named, "parameters": given} if given else named


def _tag(path: str) -> str:
    return _TAGS.get(path.removeprefix("/v1").removeprefix("/beta").strip("/").partition("/")[0], "Server")


def _operation(
    summary: str,
    answer: Schema,
    *,
    body: Schema | None = None,
    events: bool = False,
    content_type: str = "application/json",
    guarded: bool = True,
    also: tuple[int, ...] = (),
    **query: Schema,
) -> Schema:
    """`guarded`: whether it needs a key where there are keys; `also`: errors that not every operation has."""
    content: Schema = {content_type: {"schema": answer}}
    if events:
        content["text/event-stream"] = {"schema": TEXT}
    operation: Schema = {
        "summary": summary,
        "responses": answers(content, guarded=guarded, also=also, events=events and body is None),
    }
    if not guarded:
        operation["security"] = []
    if body is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": body}}}
    if query:
        operation["parameters"] = [
            {"name": name, "in": "query", "schema": schema} for name, schema in query.items()
        ]
    return operation


def _public() -> dict[str, Schema]:
    """Return what needs no key."""
    alive = record("status", status=TEXT)
    ready = _operation("Whether it can answer, else 503", ref("Readiness"), guarded=False)
    ready["responses"]["503"] = unready(ref("Readiness"))
    documents = {"/openapi.json": "This document", "/asyncapi.json": "What is streamed"}
    return {
        "/livez": {"get": _operation("Whether the process runs", alive, guarded=False)},
        "/readyz": {"get": ready},
        **{
            path: {"get": _operation(told, {"type": "object"}, guarded=False)}
            for path, told in documents.items()
        },
        **{
            path: {"get": _operation(told, TEXT, content_type="text/html", guarded=False)}
            for path, told in PAGES.items()
        },
    }
