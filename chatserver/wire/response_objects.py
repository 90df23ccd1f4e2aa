"""Responses, messages and usage as JSON values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from chatserver.domain.ledger import Ledger
from chatserver.domain.response import Failure, Finish, Outcome, Response, Status, Timing, Truncation, Usage
from chatserver.wire.items import item_objects
from chatserver.wire.usage import priced


def response_object(
    response: Response, *, status: Status | None = None, outcome: Outcome | None = None
) -> dict[str, Any]:
    """Return the response object; `status` and `outcome` override the stored ones, for events of the past.

    Extensions beside OpenAI's fields: `context` (what the model saw) and `timing`, null until the end; `continues`
    (the item whose text the answer begins with); `siblings` (responses that answer the same input), `beside`;
    `parent` (the item that it answers) and `item_id` (the one that it makes), known from the start.
    """
    params = response.params
    if status is None:
        outcome = outcome or response.outcome
        status = outcome.status if outcome else response.status
    return {
        "id": response.id,
        "object": "response",
        "created_at": response.created_at,
        "status": status.value,
        "background": params.echo.get("background", False),
        "completed_at": outcome.completed_at if outcome and outcome.status is Status.COMPLETED else None,
        "conversation": {"id": response.conversation} if response.conversation else None,
        "error": _error(outcome.failure) if outcome and outcome.failure else None,
        "incomplete_details": _incomplete(outcome),
        "instructions": params.instructions,
        "max_output_tokens": params.max_output_tokens,
        "metadata": params.metadata,
        "model": params.model,
        "output": item_objects(outcome.item, logprobs=outcome.logprobs) if outcome and outcome.item else [],
        "parallel_tool_calls": params.parallel_calls,
        "previous_response_id": response.previous,
        "prompt_cache_key": params.echo.get("prompt_cache_key"),
        "reasoning": params.echo.get("reasoning") or {"effort": None, "summary": None},
        "safety_identifier": params.echo.get("safety_identifier"),
        "service_tier": "default",
        "store": response.stored,
        "temperature": params.temperature,
        "text": params.echo.get("text") or {"format": {"type": "text"}},
        "tool_choice": params.echo.get("tool_choice") or "auto",
        "tools": params.echo.get("tools") or [],
        "top_logprobs": params.logprobs or 0,
        "top_p": params.top_p,
        "truncation": _truncation(response),
        "usage": priced(usage_object(outcome.usage), response, outcome.usage) if outcome else None,
        "user": params.echo.get("user"),
        "context": _context(response, outcome.ledger, outcome.usage) if outcome and outcome.ledger else None,
        "timing": timing_object(outcome.timing) if outcome else None,
        "continues": response.continues,
        "siblings": response.siblings,
        "beside": response.beside,
        "parent": response.answers,
        "item_id": response.item_id,
    }


def usage_object(usage: Usage) -> dict[str, Any]:
    """Return usage in the Responses dialect. What missed the cache is written to it."""
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {
            "cached_tokens": usage.cached,
            "cache_write_tokens": usage.prompt - usage.cached,
        },
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.prompt + usage.output,
    }


def timing_object(timing: Timing) -> dict[str, float]:
    """Return durations in milliseconds, and the speed."""
    return {
        "queued_ms": timing.queued_ms,
        "prefill_ms": timing.engine_ttft_ms,
        "ttft_ms": timing.ttft_ms,
        "tokens_per_second": timing.tokens_per_second,
    }


def _context(response: Response, ledger: Ledger, usage: Usage) -> dict[str, Any]:
    """Return what the model saw. `spans`: where in the prompt each item of `kept` lies, in tokens."""
    trim, params = ledger.trim, response.params
    return {
        "window": ledger.window,
        "sent": ledger.sent,
        "cached": usage.cached,
        "computed": usage.prompt - usage.cached,
        "reserve": ledger.reserve,
        "instructions": ledger.head,
        "kept": ledger.kept,
        "spans": ledger.spans,
        "dropped": ledger.dropped,
        "policy": ledger.policy,
        "cut": ledger.cut,
        "carried": ledger.carried,
        "next_cut": ledger.next_cut,
        "trimmed": trim and {"item": trim.item_id, "first": trim.first, "count": trim.count},
        "rebuilt": ledger.rebuilt,
        "summary": ledger.summary and {"item": ledger.summary, "tokens": ledger.summary_tokens},
        "difference": ledger.difference and asdict(ledger.difference),
        "model": params.model,
        "template_hash": ledger.template_hash,
        "prompt_hash": ledger.prompt_hash,
        "sampling": {
            "temperature": params.temperature,
            "top_p": params.top_p,
            "top_k": params.top_k,
            "min_p": params.min_p,
            "logit_bias": {str(token): bias for token, bias in params.logit_bias},
            "seed": params.seed,
            "stop": params.stop,
            "presence_penalty": params.presence_penalty,
            "frequency_penalty": params.frequency_penalty,
            "repetition_penalty": params.repetition_penalty,
            "ignore_eos": params.ignore_end,
        },
    }


def _incomplete(outcome: Outcome | None) -> dict[str, str] | None:
    if outcome is None or outcome.finish is not Finish.LENGTH:
        return None
    return {"reason": "max_output_tokens"}


def _error(failure: Failure) -> dict[str, str | None]:
    """Return OpenAI's error of a response; its `code` is a closed list there, so ours goes in `reason`."""
    code = {400: "invalid_prompt", 429: "rate_limit_exceeded"}.get(failure.status, "server_error")
    return {
        "code": code,
        "message": failure.message,
        "param": failure.param,
        "type": failure.kind,
        "reason": failure.code,
    }


def _truncation(response: Response) -> object:
    """Return the policy as it was asked for: a word, or an object with what goes beyond it."""
    params = response.params
    more: dict[str, object] = {}
    if params.truncation is Truncation.RETENTION_RATIO:
        more["retention_ratio"] = params.retention_ratio
    if params.post_instructions is not None:
        more["token_limits"] = {"post_instructions": params.post_instructions}
    if params.cut_inside:
        more["cut_inside"] = True
    if params.compaction:
        more["compaction"] = True
    return {"type": params.truncation.value, **more} if more else params.truncation.value
