"""The HTTP API as an OpenAPI document. A test compares its paths with the routes, and its fields with the parsers."""

from __future__ import annotations

from functools import cache
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


@cache
def document() -> Schema:
    """Return the document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "chatserver",
            "version": "1",
            "description": (
                "OpenAI's Responses, Conversations and Chat Completions. Fields not listed here are refused with 400, "
                "or accepted only with the value that changes nothing. The WebSocket is in /asyncapi.json."
            ),
        },
        "paths": {path: dict(methods) for path, methods in _paths().items()},
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(),
        },
        "security": [{}, {"key": []}],
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: str, **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": required.split()}


def _or_null(schema: Schema) -> Schema:
    return {"oneOf": [schema, {"type": "null"}]}


def _list_of(schema: Schema) -> Schema:
    array = {"type": "array", "items": schema}
    return _object(
        "object data has_more", object=TEXT, data=array, first_id=TEXT, last_id=TEXT, has_more=FLAG
    )


def _operation(
    summary: str,
    answer: Schema,
    *,
    body: Schema | None = None,
    events: bool = False,
    content_type: str = "application/json",
    **query: Schema,
) -> Schema:
    content: Schema = {content_type: {"schema": answer}}
    if events:
        content["text/event-stream"] = {"schema": TEXT}
    operation: Schema = {
        "summary": summary,
        "responses": {
            "200": {"description": "OK", "content": content},
            "default": {
                "description": "An error; 429 and 503 say when to come back, 402 means that the key's money is spent",
                "headers": _limit_headers(),
                "content": {"application/json": {"schema": _ref("Error")}},
            },
        },
    }
    if body is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": body}}}
    if query:
        operation["parameters"] = [
            {"name": name, "in": "query", "schema": schema} for name, schema in query.items()
        ]
    return operation


def _limit_headers() -> dict[str, Schema]:
    """Return the headers about limits; those of a key that has none are not sent, and successes have them as well."""
    names = ["retry-after", "retry-after-ms", "x-should-retry"]
    names += [
        f"x-ratelimit-{what}-{of}"
        for what in ("limit", "remaining", "reset")
        for of in ("requests", "tokens")
    ]
    return {name: {"schema": TEXT} for name in names}


def _paths() -> dict[str, Schema]:
    page = {
        "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
        "order": {"type": "string", "enum": ["asc", "desc"], "default": "desc"},
        "after": TEXT,
    }
    item, conversation, response = _ref("Item"), _ref("Conversation"), _ref("Response")
    completion = {
        "post": _operation(
            "Answer a conversation that the client keeps",
            _ref("ChatCompletion"),
            body=_ref("ChatCompletionRequest"),
            events=True,
        )
    }
    models = {"get": _operation("List the models", _list_of(_ref("Model")))}
    model = {"get": _operation("One model, by name or alias", _ref("Model"))}
    paths: dict[str, Schema] = {
        "/v1/responses": {
            "post": _operation("Begin a response", response, body=_ref("ResponseRequest"), events=True)
        },
        "/v1/responses/{response_id}": {
            "get": _operation(
                "A response; with stream=true its events after a position, 204 if there are no more",
                response,
                events=True,
                stream=FLAG,
                starting_after={"type": "integer", "description": "Last-Event-ID wins over it"},
            ),
            "delete": _operation("Forget a response; its items stay", _ref("Deleted")),
        },
        "/v1/responses/{response_id}/cancel": {
            "post": _operation("Stop it and keep what was written", response)
        },
        "/v1/responses/{response_id}/input_items": {
            "get": _operation("What the model saw", _list_of(item), **page)
        },
        "/v1/conversations": {
            "get": _operation("List conversations by last change", _list_of(conversation), **page),
            "post": _operation("Make a conversation", conversation, body=_ref("ConversationRequest")),
        },
        "/v1/conversations/{conversation_id}": {
            "get": _operation("A conversation", conversation),
            "post": _operation(
                "Change metadata or title", conversation, body=_object("", metadata=METADATA, title=TEXT)
            ),
            "delete": _operation(
                "Remove it and all that belongs to it; `freed_tokens` of KV cache are free again (an extension)",
                _ref("ConversationDeleted"),
            ),
        },
        "/v1/conversations/{conversation_id}/cache": {
            "get": _operation("How much of it is in the KV cache (an extension)", _ref("Cache")),
            "delete": _operation(
                "Free what only it holds of the KV cache; it goes on (an extension)", _ref("Freed")
            ),
        },
        "/v1/conversations/{conversation_id}/items": {
            "get": _operation(
                "Its items up to its head; extensions: up to `leaf`, or of all branches (order asc: by depth)",
                _list_of(item),
                branches={"type": "string", "enum": ["head", "all"], "default": "head"},
                leaf=TEXT,
                **page,
            ),
            "post": _operation("Append items", _list_of(item), body=_object("items", items=_items(20))),
        },
        "/v1/conversations/{conversation_id}/items/{item_id}": {
            "get": _operation("One item", item),
            "delete": _operation(
                "Remove it and everything under it; extension: `freed_tokens` beside the conversation's fields",
                conversation,
            ),
        },
        "/v1/conversations/{conversation_id}/fork": {
            "post": _operation(
                "A new conversation that begins with a branch of this one (an extension)",
                conversation,
                body=_object("", leaf=TEXT, metadata=METADATA),
            )
        },
        "/v1/usage": {
            "get": _operation(
                "What the tenant's keys used and what it cost (an extension)",
                _ref("Usage"),
                start_date=DAY,
                end_date=DAY,
                group_by={**TEXT, "description": "some of key, model and day, separated by commas"},
            )
        },
        "/livez": {"get": _operation("Whether the process runs", _object("status", status=TEXT))},
        "/readyz": {"get": _operation("Whether it can answer, else 503", _ref("Readiness"))},
        "/metrics": {
            "get": _operation("Figures of the engines for Prometheus", TEXT, content_type="text/plain")
        },
        "/openapi.json": {"get": _operation("This document", {"type": "object"})},
        "/asyncapi.json": {"get": _operation("The WebSocket", {"type": "object"})},
    }
    for prefix in ("/v1", ""):
        paths |= {
            f"{prefix}/chat/completions": completion,
            f"{prefix}/models": models,
            f"{prefix}/models/{{model}}": model,
        }
    for path, operations in paths.items():
        names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        if names:
            operations["parameters"] = [
                {"name": n, "in": "path", "required": True, "schema": TEXT} for n in names
            ]
    return paths


def _items(most: int) -> Schema:
    return {"type": "array", "maxItems": most, "items": _ref("Message")}


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


def request_schemas() -> dict[str, Schema]:
    """Return the schemas of the two requests that generate."""
    conversation = _object(
        "id", id=TEXT, parent=_or_null({**TEXT, "description": "extension: branch under this item"})
    )
    policy = _object(
        "type",
        type={"type": "string", "enum": ["auto", "retention_ratio"]},
        retention_ratio={"type": "number", "minimum": 0.1, "maximum": 1.0, "default": 0.7},
        token_limits=_object("", post_instructions={**WHOLE, "minimum": 1}),
        cut_inside={**FLAG, "description": "extension: one too long message may lose its middle"},
        compaction={**FLAG, "description": "extension: what a cut drops is summarised in idle time"},
    )
    return {
        "ChatCompletionRequest": _object(
            "model messages",
            model=TEXT,
            messages=_items(10_000),
            max_tokens=WHOLE,
            max_completion_tokens=WHOLE,
            stream_options=_object("", include_usage=FLAG),
            **_sampling(),
        ),
        "ResponseRequest": _object(
            "",
            model=TEXT,
            input={"oneOf": [TEXT, _items(10_000)]},
            instructions=TEXT,
            previous_response_id=TEXT,
            conversation={"oneOf": [TEXT, conversation]},
            store={"type": "boolean", "default": True},
            background=FLAG,
            truncation={"oneOf": [{"type": "string", "enum": ["auto", "disabled"]}, policy]},
            max_output_tokens=WHOLE,
            **{
                "continue": {
                    **TEXT,
                    "description": "extension: go on with the answer of this response, which was stopped or cut off; "
                    "with it only model, max_output_tokens, metadata, stream, background and labels",
                }
            },
            **_sampling(),
        ),
    }


def _context() -> Schema:
    """Return the schema of a response's ledger."""
    names: Schema = {"type": "array", "items": TEXT}
    return _object(
        "window sent cached computed kept spans dropped policy",
        window=WHOLE,
        sent={**WHOLE, "description": "tokens of the prompt; cached + computed"},
        cached={**WHOLE, "description": "of these, from the KV cache (hit)"},
        computed={**WHOLE, "description": "of these, prefilled for this answer (miss)"},
        reserve={**WHOLE, "description": "tokens kept free for the answer"},
        instructions={**WHOLE, "description": "tokens before the items"},
        kept=names,
        spans={"type": "array", "description": "[first, end) of each kept item, in prompt tokens"},
        dropped=names,
        policy=TEXT,
        cut=_or_null({**TEXT, "description": "first item behind the instructions; null: nothing is dropped"}),
        next_cut=_or_null(TEXT),
        trimmed=_or_null(_object("item first count", item=TEXT, first=WHOLE, count=WHOLE)),
        summary=_or_null(_object("item tokens", item=TEXT, tokens=WHOLE)),
        difference=_or_null(
            {"type": "object", "description": "of the answer's ids from the template's rendering"}
        ),
        rebuilt={**WHOLE, "description": "items whose ids were of another template and were made again"},
        model=TEXT,
        template_hash=TEXT,
        prompt_hash=TEXT,
        sampling={"type": "object"},
    )


def _schemas() -> dict[str, Schema]:
    part = _object(
        "type text", type={"type": "string", "enum": ["text", "input_text", "output_text"]}, text=TEXT
    )
    content: Schema = {"oneOf": [TEXT, {"type": "array", "items": part}]}
    error = _object(
        "message type param code", message=TEXT, type=TEXT, param=_or_null(TEXT), code=_or_null(TEXT)
    )
    choice = _object("index message finish_reason", index=WHOLE, message=_ref("Message"), finish_reason=TEXT)
    numbers: Schema = {"type": "object", "additionalProperties": {"type": ["integer", "object"]}}
    return request_schemas() | {
        "Error": _object("error", error=error),
        "Message": _object("role content", role=ROLE, content=content),
        "Item": _object(
            "id type role content",
            id=TEXT,
            type={"const": "message"},
            status=TEXT,
            role=ROLE,
            content=content,
        ),
        "ConversationRequest": _object("", metadata=METADATA, items=_items(20)),
        "Conversation": _object(
            "id object created_at metadata",
            id=TEXT,
            object={"const": "conversation"},
            created_at=WHOLE,
            updated_at=WHOLE,
            metadata=METADATA,
            title=TEXT,
            head=_or_null(TEXT),
            active=_or_null(TEXT),
        ),
        "Cache": _object(
            "object conversation_id state engines",
            object={"const": "conversation.cache"},
            conversation_id=TEXT,
            state={"type": "string", "enum": ["known", "unknown"]},
            prefix_tokens=_or_null({**WHOLE, "description": "what the next prompt begins with"}),
            warm_tokens=_or_null({**WHOLE, "description": "how much of it is in the cache"}),
            prefill_tokens=_or_null({**WHOLE, "description": "what is not; the new message comes on top"}),
            page_tokens=_or_null(WHOLE),
            cut=_or_null(
                {**TEXT, "description": "first item behind the instructions; null: nothing is dropped"}
            ),
            engines={"type": "array", "items": {"type": "object"}},
        ),
        "Response": _object(
            "id object created_at status model output",
            id=TEXT,
            object={"const": "response"},
            created_at=WHOLE,
            status={
                "type": "string",
                "enum": ["queued", "in_progress", "completed", "incomplete", "cancelled", "failed"],
            },
            model=TEXT,
            output={"type": "array", "items": _ref("Item")},
            usage=_or_null(numbers),
            context=_or_null(_context()),
            timing=_or_null({"type": "object", "description": "milliseconds"}),
            continues=_or_null({**TEXT, "description": "the item whose text the answer begins with"}),
            siblings={"type": "array", "items": TEXT, "description": "responses that answer the same input"},
            beside=_or_null({**TEXT, "description": "the response that this one is a sibling of"}),
        ),
        "ChatCompletion": _object(
            "id object created model choices usage",
            id=TEXT,
            object={"const": "chat.completion"},
            created=WHOLE,
            model=TEXT,
            choices={"type": "array", "items": choice},
            usage=numbers,
        ),
        "Model": _object(
            "id object created owned_by",
            id=TEXT,
            object={"const": "model"},
            created=WHOLE,
            owned_by=TEXT,
            context_window=WHOLE,
            aliases={"type": "array", "items": TEXT},
        ),
        "Cost": _object(
            "amount currency",
            amount={"type": "string", "pattern": r"^\d+\.\d{2,12}$", "description": "exact"},
            currency={"type": "string", "pattern": "^[A-Z]{3}$"},
        ),
        "Usage": _object(
            "object start_date end_date data totals",
            object={"const": "usage"},
            start_date=DAY,
            end_date=DAY,
            data={"type": "array", "items": _ref("UsageRow")},
            totals={"type": "array", "maxItems": 8, "items": _ref("UsageRow")},
        ),
        "UsageRow": _object(
            "requests unpriced_requests input_tokens input_cached_tokens output_tokens cost",
            day=DAY,
            key_id=TEXT,
            model=TEXT,
            requests=WHOLE,
            unpriced_requests=WHOLE,
            input_tokens=WHOLE,
            input_cached_tokens=WHOLE,
            output_tokens=WHOLE,
            cost=_or_null(_ref("Cost")),
        ),
        "Deleted": _object("id object deleted", id=TEXT, object=TEXT, deleted=FLAG),
        "ConversationDeleted": _object(
            "id object deleted freed_tokens", id=TEXT, object=TEXT, deleted=FLAG, freed_tokens=_or_null(WHOLE)
        ),
        "Freed": _object(
            "object conversation_id freed_tokens",
            object={"const": "conversation.cache.closed"},
            conversation_id=TEXT,
            freed_tokens=_or_null(WHOLE),
        ),
        "Readiness": _object(
            "status reason engines",
            status={"type": "string", "enum": ["ready", "unavailable"]},
            reason=_or_null(TEXT),
            engines={"type": "array", "items": {"type": "object"}},
        ),
    }
