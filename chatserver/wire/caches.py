"""What is told of conversations' KV cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chatserver.ports.caches import CacheReport


def cache_object(conversation_id: str, reports: Sequence[CacheReport]) -> dict[str, Any]:
    """Return what is warm of a conversation, by the engine that holds least of it: any may take the next turn.

    `prefill_tokens`: what the next turn computes beside its new message. All are null while no engine answers.
    """
    worst = min(reports, key=lambda report: report.warm, default=None)
    return {
        "object": "conversation.cache",
        "conversation_id": conversation_id,
        "state": "unknown" if worst is None else "known",
        "prefix_tokens": worst and worst.prefix,
        "warm_tokens": worst and worst.warm,
        "prefill_tokens": worst and worst.prefix - worst.warm,
        "page_tokens": worst and worst.page,
        "cut": worst and worst.cut,
        "engines": [
            {"id": report.engine_id, "prefix_tokens": report.prefix, "warm_tokens": report.warm}
            for report in reports
        ],
    }


def cache_closed_object(conversation_id: str, freed: int | None) -> dict[str, Any]:
    """Return what closing a conversation's cache freed, in tokens of KV; null if no engine told in time."""
    return {
        "object": "conversation.cache.closed",
        "conversation_id": conversation_id,
        "freed_tokens": freed,
    }
