"""Schemas of a response, its usage, and its ledger."""

from __future__ import annotations

from chatserver.domain.response import Status
from chatserver.wire.documents.pieces import (
    FLAG,
    METADATA,
    TEXT,
    WHOLE,
    Schema,
    numbers,
    or_null,
    record,
    ref,
)

MILLISECONDS: Schema = {"type": "number", "minimum": 0, "description": "milliseconds"}


def response_schemas() -> dict[str, Schema]:
    """Return the schemas by name."""
    return {
        "Response": _response(),
        "ResponseUsage": record(
            "input_tokens input_tokens_details output_tokens output_tokens_details total_tokens",
            input_tokens=WHOLE,
            input_tokens_details=_cached(),
            output_tokens=WHOLE,
            output_tokens_details=record("reasoning_tokens", reasoning_tokens=WHOLE),
            total_tokens=WHOLE,
            cost=ref("Cost"),
        ),
        "ChatUsage": record(
            "prompt_tokens completion_tokens total_tokens prompt_cache_hit_tokens prompt_cache_miss_tokens",
            prompt_tokens=WHOLE,
            completion_tokens=WHOLE,
            total_tokens=WHOLE,
            prompt_tokens_details=_cached(),
            completion_tokens_details=record("reasoning_tokens", reasoning_tokens=WHOLE),
            prompt_cache_hit_tokens={**WHOLE, "description": "DeepSeek's name for cached_tokens"},
            prompt_cache_miss_tokens={**WHOLE, "description": "hit + miss = prompt"},
            cost=ref("Cost"),
        ),
        "Timing": record(
            "queued_ms prefill_ms ttft_ms tokens_per_second",
            queued_ms=MILLISECONDS,
            prefill_ms=MILLISECONDS,
            ttft_ms=MILLISECONDS,
            tokens_per_second={"type": "number", "minimum": 0},
        ),
        "Ledger": _ledger(),
    }


def _cached() -> Schema:
    return record("cached_tokens cache_write_tokens", cached_tokens=WHOLE, cache_write_tokens=WHOLE)


def _response() -> Schema:
    reason = {**TEXT, "description": "an extension: the code as in errors; `code` is OpenAI's closed list"}
    return record(
        "id object created_at status model output usage error incomplete_details",
        id=TEXT,
        object={"const": "response"},
        created_at={**WHOLE, "description": "seconds since 1970"},
        completed_at=or_null(WHOLE),
        status={"type": "string", "enum": [status.value for status in Status]},
        model=TEXT,
        output={"type": "array", "items": ref("Item")},
        usage=or_null(ref("ResponseUsage")),
        error=or_null(
            record("code message", code=TEXT, message=TEXT, param=or_null(TEXT), type=TEXT, reason=reason)
        ),
        incomplete_details=or_null(record("reason", reason={"const": "max_output_tokens"})),
        conversation=or_null(record("id", id=TEXT)),
        previous_response_id=or_null(TEXT),
        instructions=or_null(TEXT),
        background=FLAG,
        store=FLAG,
        metadata=METADATA,
        max_output_tokens=or_null(WHOLE),
        temperature=or_null({"type": "number"}),
        top_p=or_null({"type": "number"}),
        truncation={"description": "as it was asked for", "oneOf": [TEXT, {"type": "object"}]},
        user=or_null(TEXT),
        safety_identifier=or_null(TEXT),
        prompt_cache_key=or_null(TEXT),
        service_tier=TEXT,
        parallel_tool_calls=FLAG,
        reasoning={"type": "object"},
        text={"type": "object"},
        tool_choice={"oneOf": [TEXT, {"type": "object"}]},
        tools={"type": "array", "items": {"type": "object"}},
        top_logprobs=WHOLE,
        context=or_null(ref("Ledger")),
        timing=or_null(ref("Timing")),
        continues=or_null({**TEXT, "description": "the item whose text the answer begins with"}),
        siblings={"type": "array", "items": TEXT, "description": "responses that answer the same input"},
        beside=or_null({**TEXT, "description": "the response that this one is a sibling of"}),
        parent=or_null({**TEXT, "description": "the item that it answers"}),
        item_id={**TEXT, "description": "the item that its answer is or will be"},
    )


def _ledger() -> Schema:
    names: Schema = {"type": "array", "items": TEXT}
    number = or_null({"type": "number"})
    return record(
        "window sent cached computed kept spans dropped policy",
        window=WHOLE,
        sent={**WHOLE, "description": "tokens of the prompt; cached + computed"},
        cached={**WHOLE, "description": "of these, from the KV cache (hit)"},
        computed={**WHOLE, "description": "of these, prefilled for this answer (miss)"},
        reserve={**WHOLE, "description": "tokens kept free for the answer"},
        instructions={**WHOLE, "description": "tokens before the items"},
        kept=names,
        spans={
            "type": "array",
            "items": numbers(2),
            "description": "[first, end) of each kept item, in prompt tokens",
        },
        dropped=names,
        policy=TEXT,
        cut=or_null({**TEXT, "description": "first item behind the instructions; null: nothing is dropped"}),
        carried={**WHOLE, "description": "tokens of the prompt that are the beginning of the answer"},
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
        sampling=record(
            "temperature top_p top_k min_p logit_bias seed stop",
            temperature=number,
            top_p=number,
            top_k=or_null(WHOLE),
            min_p=number,
            logit_bias={"type": "object", "additionalProperties": {"type": "number"}},
            seed=or_null(WHOLE),
            stop={"type": "array", "items": TEXT},
            presence_penalty={"type": "number"},
            frequency_penalty={"type": "number"},
            repetition_penalty={"type": "number"},
            ignore_eos=FLAG,
        ),
    )
