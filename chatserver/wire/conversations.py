"""Conversations, their items, and lists: read requests, write objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chatserver.domain.ids import answer_of
from chatserver.domain.item import Conversation, Item, Message, Role
from chatserver.domain.response import Response, Usage
from chatserver.errors import BadRequest, NotFound
from chatserver.ports.caches import CacheReport
from chatserver.ports.registry import ServedModel
from chatserver.wire.commands import Page
from chatserver.wire.fields import Fields, metadata, wrong
from chatserver.wire.items import item_objects
from chatserver.wire.messages import input_messages
from chatserver.wire.response_objects import usage_object
from chatserver.wire.responses import MAX_ID, check_include

MAX_ADDED = 20
MAX_LIMIT = 100
MAX_TITLE = 200
MAX_SEARCH = 200
MAX_INCLUDE = 20


@dataclass(frozen=True, slots=True)
class Branch:
    """Which items to list: of all branches, of the one that ends with `leaf`, or of one that goes `through` an item.

    `siblings`: whether to say of each item what stands beside it.
    """

    everything: bool = False
    leaf: str | None = None
    through: str | None = None
    siblings: bool = False


def parse_create(body: dict[str, Any]) -> tuple[dict[str, str], tuple[Message, ...]]:
    """Check POST /v1/conversations; return metadata and first messages."""
    fields = Fields(body)
    pairs = metadata(fields.take("metadata"))
    items = fields.items("items", [], most=MAX_ADDED)
    fields.done()
    return pairs, input_messages(items, "items", most=MAX_ADDED)


def parse_update(body: dict[str, Any]) -> tuple[str | None, dict[str, str] | None]:
    """Check POST /v1/conversations/{id}; return title (an extension) and metadata, None where not sent."""
    fields = Fields(body)
    title = fields.text("title", None, longest=MAX_TITLE)
    pairs = metadata(fields.take("metadata")) if fields.has("metadata") else None
    fields.done()
    if title is None and pairs is None:
        raise BadRequest("The body: expected metadata or title, got neither", param="metadata")
    return title, pairs


def parse_items(body: dict[str, Any]) -> tuple[Message, ...]:
    """Check POST /v1/conversations/{id}/items."""
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


def parse_branch(query: Mapping[str, str]) -> tuple[Branch, Mapping[str, str]]:
    """Take our extensions from the query of an item list; return them, and the rest."""
    rest = {k: v for k, v in query.items() if k not in ("branches", "leaf", "through", "siblings")}
    branches, leaf, through = query.get("branches", "head"), query.get("leaf"), query.get("through")
    siblings = query.get("siblings", "false")
    if branches not in ("head", "all"):
        raise BadRequest(f"branches: expected head or all, got {branches[:60]!r}", param="branches")
    if siblings not in ("true", "false"):
        raise BadRequest(f"siblings: expected true or false, got {siblings[:60]!r}", param="siblings")
    if leaf is not None and through is not None:
        raise BadRequest("through: expected it without leaf, got both", param="through")
    one = leaf or through or siblings == "true"
    if branches == "all" and (one or rest.get("order") == "desc"):
        raise BadRequest(
            "branches=all: expected no leaf, through or siblings, and order asc", param="branches"
        )
    return Branch(branches == "all", leaf, through, siblings == "true"), rest


def parse_page(query: Mapping[str, str], *, search: bool = False) -> Page:
    """Check the query of a list: limit, after, order; `search`: q, too."""
    fields = Fields(query)
    text = fields.take("limit", "20")
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MAX_LIMIT):
        raise BadRequest(
            f"limit: expected a whole number from 1 to {MAX_LIMIT}, got {text[:60]!r}", param="limit"
        )
    order = fields.take("order", "desc")
    if order not in ("asc", "desc"):
        raise BadRequest(f"order: expected asc or desc, got {order[:60]!r}", param="order")
    after = fields.text("after", None, longest=MAX_ID)
    words = fields.text("q", "", longest=MAX_SEARCH) if search else ""
    fields.done()
    return Page(int(text), after or None, order == "desc", words.strip())


def parse_query(pairs: Sequence[tuple[str, str]], *, logprobs: bool = False) -> dict[str, str]:
    """Check the `include` of a query, which may come several times; return the rest. Raises BadRequest."""
    included = [value for name, value in pairs if name in ("include", "include[]")]
    if len(included) > MAX_INCLUDE:
        raise wrong("include", f"at most {MAX_INCLUDE} values", included, code="array_above_max_length")
    check_include(included, logprobs=logprobs)
    return {name: value for name, value in pairs if name not in ("include", "include[]")}


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


def items_of(
    item: Item, families: Mapping[str | None, Sequence[str]] | None = None, leaf: str = ""
) -> list[dict[str, Any]]:
    """Return what clients see of an item, part by part; a summary is of type compaction.

    Extensions: created_at, response_id, and parent: of the first part the item's, of the others the part before.
    `families`: what stands under some items. If given, an item says what stands beside it, itself among them, and
    `leaf` what stands under it.
    """
    if item.role is Role.SUMMARY:
        return [summary_object(item)]
    more: dict[str, Any] = {"created_at": item.created_at, "response_id": item.response_id}
    if families is not None:
        more["siblings"] = families.get(item.parent, [item.id])
    if families is not None and item.id == leaf:
        more["children"] = families.get(item.id, [])
    shown = item_objects(item)
    parents = [item.parent, *(part["id"] for part in shown)]
    return [{**part, **more, "parent": parent} for part, parent in zip(shown, parents, strict=False)]


def one_of(item: Item, identifier: str) -> dict[str, Any]:
    """Return the part of an item that has this id. Raises NotFound."""
    found = next((part for part in items_of(item) if part["id"] == identifier), None)
    if found is None:
        raise NotFound(f"Nothing here has the id {identifier!r}.", param="item_id")
    return found


def summary_object(item: Item) -> dict[str, Any]:
    """Return a summary (an extension): what it says, the last item that it covers, what it cost."""
    prompt, cached, output = item.cost
    return {
        "id": item.id,
        "type": "compaction",
        "status": item.status.value,
        "encrypted_content": "",
        "summary": [{"type": "summary_text", "text": item.text}],
        "parent": item.parent,
        "created_at": item.created_at,
        "usage": usage_object(Usage(prompt, cached, output)),
    }


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


def deleted_object(conversation_id: str, freed: int | None) -> dict[str, Any]:
    """Return what a deleted conversation leaves. Extension: `freed_tokens` of KV, null if no engine told in time."""
    return {
        "id": conversation_id,
        "object": "conversation.deleted",
        "deleted": True,
        "freed_tokens": freed,
    }


def cache_closed_object(conversation_id: str, freed: int | None) -> dict[str, Any]:
    """Return what closing a conversation's cache freed, in tokens of KV; null if no engine told in time."""
    return {
        "object": "conversation.cache.closed",
        "conversation_id": conversation_id,
        "freed_tokens": freed,
    }


def list_object(
    values: Sequence[Any], render: Callable[[Any], dict[str, Any]], *, has_more: bool, last: str = ""
) -> dict[str, Any]:
    """Return a page of a list; the ids are "" when it is empty, for OpenAI's types.

    `last`: where the next page goes on, if not behind the last value.
    """
    return _list([render(value) for value in values], has_more=has_more, last=last)


def item_list(
    items: Sequence[Item],
    *,
    has_more: bool,
    newest_first: bool = False,
    beside: Mapping[str | None, Sequence[str]] | None = None,
    leaf: str = "",
) -> dict[str, Any]:
    """Return a page of items, each with all of its parts. `beside`, `leaf`: see `items_of`."""
    last_part = {item.id: item_objects(item)[-1]["id"] for item in items if item.parts}
    rendered = []
    for item in items:
        shown = items_of(item, beside, leaf)
        shown[0]["parent"] = last_part.get(item.parent or "", item.parent)
        rendered += reversed(shown) if newest_first else shown
    return _list(rendered, has_more=has_more)


def _list(rendered: list[dict[str, Any]], *, has_more: bool, last: str = "") -> dict[str, Any]:
    return {
        "object": "list",
        "data": rendered,
        "first_id": rendered[0]["id"] if rendered else "",
        "last_id": last or (rendered[-1]["id"] if rendered else ""),
        "has_more": has_more,
    }


def page_of(items: Sequence[Item], page: Page) -> tuple[list[Item], bool]:
    """Return one page of a branch, and whether more follow. Raises BadRequest if `after` is not in it."""
    ordered = list(reversed(items)) if page.newest_first else list(items)
    start = 0
    if page.after is not None:
        places = [index for index, item in enumerate(ordered) if item.id == answer_of(page.after)]
        if not places:
            raise BadRequest(f"after: no item {page.after[:60]!r} in this list", param="after")
        start = places[0] + 1
    return ordered[start : start + page.limit], start + page.limit < len(ordered)


def model_object(model: ServedModel) -> dict[str, Any]:
    """Return a model. Extensions: context_window in tokens, aliases."""
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "chatserver",
        "context_window": model.context,
        "aliases": model.aliases,
    }
