"""Schemas of what is answered, and of what clients send to conversations."""

from __future__ import annotations

from chatserver.wire.documents.pieces import (
    DAY,
    FLAG,
    METADATA,
    ROLE,
    TEXT,
    WHOLE,
    Schema,
    messages,
    or_null,
    record,
    ref,
)
from chatserver.wire.documents.requests import request_schemas


def schemas() -> dict[str, Schema]:
    """Return all schemas by name, those of requests among them."""
    part = record(
        "type text", type={"type": "string", "enum": ["text", "input_text", "output_text"]}, text=TEXT
    )
    content: Schema = {"oneOf": [TEXT, {"type": "array", "items": part}]}
    error = record(
        "message type param code", message=TEXT, type=TEXT, param=or_null(TEXT), code=or_null(TEXT)
    )
    choice = record("index message finish_reason", index=WHOLE, message=ref("Message"), finish_reason=TEXT)
    numbers: Schema = {"type": "object", "additionalProperties": {"type": ["integer", "object"]}}
    return request_schemas() | {
        "Error": record("error", error=error),
        "Message": record("role content", role=ROLE, content=content),
        "Item": {"oneOf": [*_items(content)]},
        "ConversationRequest": record("", metadata=METADATA, items=messages(20)),
        "Conversation": record(
            "id object created_at metadata",
            id=TEXT,
            object={"const": "conversation"},
            created_at=WHOLE,
            updated_at=WHOLE,
            metadata=METADATA,
            title=TEXT,
            head=or_null(TEXT),
            active=or_null(TEXT),
            running={
                "type": "array",
                "description": "of one conversation, not in lists: its responses that have not ended",
                "items": record(
                    "response_id item_id parent", response_id=TEXT, item_id=TEXT, parent=or_null(TEXT)
                ),
            },
        ),
        "Cache": record(
            "object conversation_id state engines",
            object={"const": "conversation.cache"},
            conversation_id=TEXT,
            state={"type": "string", "enum": ["known", "unknown"]},
            prefix_tokens=or_null({**WHOLE, "description": "what the next prompt begins with"}),
            warm_tokens=or_null({**WHOLE, "description": "how much of it is in the cache"}),
            prefill_tokens=or_null({**WHOLE, "description": "what is not; the new message comes on top"}),
            page_tokens=or_null(WHOLE),
            cut=or_null(
                {**TEXT, "description": "first item behind the instructions; null: nothing is dropped"}
            ),
            engines={"type": "array", "items": {"type": "object"}},
        ),
        "Response": record(
            "id object created_at status model output",
            id=TEXT,
            object={"const": "response"},
            created_at=WHOLE,
            status={
                "type": "string",
                "enum": ["queued", "in_progress", "completed", "incomplete", "cancelled", "failed"],
            },
            model=TEXT,
            output={"type": "array", "items": ref("Item")},
            usage=or_null(numbers),
            context=or_null(_ledger()),
            timing=or_null({"type": "object", "description": "milliseconds"}),
            continues=or_null({**TEXT, "description": "the item whose text the answer begins with"}),
            siblings={"type": "array", "items": TEXT, "description": "responses that answer the same input"},
            beside=or_null({**TEXT, "description": "the response that this one is a sibling of"}),
            parent=or_null({**TEXT, "description": "the item that it answers"}),
            item_id={**TEXT, "description": "the item that its answer is or will be"},
        ),
        "ChatCompletion": record(
            "id object created model choices usage",
            id=TEXT,
            object={"const": "chat.completion"},
            created=WHOLE,
            model=TEXT,
            choices={"type": "array", "items": choice},
            usage=numbers,
        ),
        "Model": record(
            "id object created owned_by",
            id=TEXT,
            object={"const": "model"},
            created=WHOLE,
            owned_by=TEXT,
            context_window=WHOLE,
            aliases={"type": "array", "items": TEXT},
        ),
        "Cost": record(
            "amount currency",
            amount={"type": "string", "pattern": r"^\d+\.\d{2,12}$", "description": "exact"},
            currency={"type": "string", "pattern": "^[A-Z]{3}$"},
        ),
        "Usage": record(
            "object start_date end_date data totals",
            object={"const": "usage"},
            start_date=DAY,
            end_date=DAY,
            data={"type": "array", "items": ref("UsageRow")},
            totals={"type": "array", "maxItems": 8, "items": ref("UsageRow")},
        ),
        "UsageRow": record(
            "requests unpriced_requests input_tokens input_cached_tokens output_tokens cost",
            day=DAY,
            key_id=TEXT,
            model=TEXT,
            requests=WHOLE,
            unpriced_requests=WHOLE,
            input_tokens=WHOLE,
            input_cached_tokens=WHOLE,
            output_tokens=WHOLE,
            cost=or_null(ref("Cost")),
        ),
        "Deleted": record("id object deleted", id=TEXT, object=TEXT, deleted=FLAG),
        "ConversationDeleted": record(
            "id object deleted freed_tokens", id=TEXT, object=TEXT, deleted=FLAG, freed_tokens=or_null(WHOLE)
        ),
        "Freed": record(
            "object conversation_id freed_tokens",
            object={"const": "conversation.cache.closed"},
            conversation_id=TEXT,
            freed_tokens=or_null(WHOLE),
        ),
        "Readiness": record(
            "status reason engines",
            status={"type": "string", "enum": ["ready", "unavailable"]},
            reason=or_null(TEXT),
            engines={"type": "array", "items": {"type": "object"}},
        ),
    }


def _items(content: Schema) -> tuple[Schema, ...]:
    """Return the schemas of the items of a conversation."""
    common = {"id": TEXT, "status": TEXT}
    thought = {"type": "array", "items": record("type text", type={"const": "reasoning_text"}, text=TEXT)}
    call = {"call_id": TEXT, "name": TEXT, "arguments": {**TEXT, "description": "JSON as the model wrote it"}}
    return (
        record("id type role content", **common, type={"const": "message"}, role=ROLE, content=content),
        record("id type content", **common, type={"const": "reasoning"}, content=thought),
        record("id type call_id name arguments", **common, type={"const": "function_call"}, **call),
        record(
            "id type call_id output",
            **common,
            type={"const": "function_call_output"},
            call_id=TEXT,
            output=TEXT,
        ),
        record("id type summary", **common, type={"const": "compaction"}, summary={"type": "array"}),
    )


def _ledger() -> Schema:
    """Return the schema of a response's ledger."""
    names: Schema = {"type": "array", "items": TEXT}
    return record(
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
        cut=or_null({**TEXT, "description": "first item behind the instructions; null: nothing is dropped"}),
        next_cut=or_null(TEXT),
        trimmed=or_null(record("item first count", item=TEXT, first=WHOLE, count=WHOLE)),
        summary=or_null(record("item tokens", item=TEXT, tokens=WHOLE)),
        difference=or_null(
            {"type": "object", "description": "of the answer's ids from the template's rendering"}
        ),
        rebuilt={**WHOLE, "description": "items whose ids were of another template and were made again"},
        model=TEXT,
        template_hash=TEXT,
        prompt_hash=TEXT,
        sampling={"type": "object"},
    )
