"""Conversations: read requests, write objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chatserver.domain.item import Conversation, Message
from chatserver.domain.response import Response
from chatserver.errors import BadRequest
from chatserver.wire.commands import Orphan
from chatserver.wire.fields import Fields, metadata
from chatserver.wire.messages import first_messages, input_messages
from chatserver.wire.responses import MAX_ID, check_include

MAX_ADDED = 20
MAX_TITLE = 200


def parse_create(body: dict[str, Any]) -> tuple[dict[str, str], tuple[Message, ...]]:
    """Check POST /v1/conversations; return metadata and first messages."""
    fields = Fields(body)
    pairs = metadata(fields.take("metadata"))
    items = fields.items("items", [], most=MAX_ADDED)
    fields.done()
    return pairs, first_messages(items, "items", most=MAX_ADDED)


def parse_update(body: dict[str, Any]) -> tuple[str | None, dict[str, str] | None]:
    """Check POST /v1/conversations/{id}; return title (an extension) and metadata, None where not sent."""
    fields = Fields(body)
    title = fields.text("title", None, longest=MAX_TITLE)
    pairs = metadata(fields.take("metadata")) if fields.has("metadata") else None
    fields.done()
    if title is None and pairs is None:
        raise BadRequest("The body: expected metadata or title, got neither", param="metadata")
    return title, pairs


def parse_items(body: dict[str, Any]) -> tuple[tuple[Message, ...], tuple[Orphan, ...]]:
    """Check POST /v1/conversations/{id}/items; return as `input_messages`."""
    fields = Fields(body)
    items = fields.items("items", most=MAX_ADDED)
    check_include(fields.items("include", [], most=20))
    fields.done()
    if not items:
        raise BadRequest("items: expected at least one item, got none", param="items")
    return input_messages(items, "items", most=MAX_ADDED)


def parse_fork(body: dict[str, Any]) -> tuple[str | None, dict[str, str] | None]:
    """Check POST /v1/conversations/{id}/fork (an extension); return the last item of the copy, and metadata."""
    fields = Fields(body)
    leaf = fields.text("leaf", None, longest=MAX_ID)
    pairs = metadata(fields.take("metadata")) if fields.has("metadata") else None
    fields.done()
    return leaf, pairs


def conversation_object(
    conversation: Conversation, running: Sequence[Response] | None = None
) -> dict[str, Any]:
    """Return a conversation. Extensions: title, updated_at, head (last item), active (running response).

    `running`: all running responses if they are told, each with the item that it answers and the one it will make.
    """
    more = {} if running is None else {"running": [_running(response) for response in running]}
    return {
        "id": conversation.id,
        "object": "conversation",
        "created_at": conversation.created_at,
        "metadata": conversation.metadata or {},
        "title": conversation.title,
        "updated_at": conversation.updated_at or conversation.created_at,
        "head": conversation.head,
        "active": conversation.active,
        **more,
    }


def _running(response: Response) -> dict[str, Any]:
    return {"response_id": response.id, "item_id": response.item_id, "parent": response.answers}


def changed_event(conversation: Conversation, running: Sequence[Response]) -> dict[str, Any]:
    """Return what a subscriber of a conversation is told, first and then after each change."""
    return {"type": "conversation.changed", "conversation": conversation_object(conversation, running)}


def gone_event(conversation_id: str) -> dict[str, Any]:
    """Return the last thing that a subscriber is told: the conversation was deleted."""
    return {"type": "conversation.deleted", "conversation_id": conversation_id}


def deleted_object(conversation_id: str, freed: int | None) -> dict[str, Any]:
    """Return what a deleted conversation leaves. Extension: `freed_tokens` of KV, null if no engine told in time."""
    return {
        "id": conversation_id,
        "object": "conversation.deleted",
        "deleted": True,
        "freed_tokens": freed,
    }
