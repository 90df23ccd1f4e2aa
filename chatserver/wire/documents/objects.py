"""Schemas of what is answered, and of what clients send to conversations."""

from __future__ import annotations

from chatserver.ports.registry import EngineState
from chatserver.wire.conversations import MAX_ADDED
from chatserver.wire.documents.items import call_schema, item_schemas
from chatserver.wire.documents.pieces import (
    DAY,
    FLAG,
    METADATA,
    TEXT,
    WHOLE,
    Schema,
    choice_logprobs,
    input_items,
    or_null,
    record,
    ref,
)
from chatserver.wire.documents.requests import request_schemas
from chatserver.wire.documents.response import response_schemas


def schemas() -> dict[str, Schema]:
    """Return all schemas by name, those of requests among them."""
    return request_schemas() | response_schemas() | item_schemas() | _conversations() | _others()


def _conversations() -> dict[str, Schema]:
    return {
        "ConversationRequest": record("", metadata=METADATA, items=input_items(MAX_ADDED)),
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
            freed_tokens=or_null(
                {**WHOLE, "description": "of KV cache; only when an item was removed (an extension)"}
            ),
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
            engines={
                "type": "array",
                "items": record(
                    "id prefix_tokens warm_tokens", id=TEXT, prefix_tokens=WHOLE, warm_tokens=WHOLE
                ),
            },
        ),
    }


def _others() -> dict[str, Schema]:
    error = record(
        "message type param code", message=TEXT, type=TEXT, param=or_null(TEXT), code=or_null(TEXT)
    )
    answer = record(
        "role content",
        role={"const": "assistant"},
        content=or_null(TEXT),
        reasoning_content=or_null({**TEXT, "description": "what the model thought, if it did"}),
        tool_calls={"type": "array", "items": call_schema()},
        refusal={"type": "null"},
    )
    choice = record(
        "index message finish_reason",
        index=WHOLE,
        message=answer,
        logprobs=or_null(choice_logprobs()),
        finish_reason={"type": "string", "enum": ["stop", "length", "tool_calls"]},
    )
    engine = record(
        "id state",
        id=TEXT,
        state={"type": "string", "enum": [state.value for state in EngineState]},
        detail=TEXT,
        seconds={"type": "number", "description": "in this state"},
        model=or_null(TEXT),
        running=WHOLE,
        queued=WHOLE,
        kv_used=WHOLE,
        kv_tokens=WHOLE,
        kv_cached=WHOLE,
        kv_leaked=WHOLE,
    )
    return {
        "Error": record("error", error=error),
        "ChatCompletion": record(
            "id object created model choices usage",
            id=TEXT,
            object={"const": "chat.completion"},
            created=WHOLE,
            model=TEXT,
            choices={"type": "array", "items": choice},
            usage=ref("ChatUsage"),
            timing=ref("Timing"),
            service_tier=TEXT,
            system_fingerprint=or_null(TEXT),
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
            engines={"type": "array", "items": engine},
        ),
    }
