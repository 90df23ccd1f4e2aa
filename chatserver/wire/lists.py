"""Lists: what page is asked for, and what it looks like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from chatserver.errors import BadRequest
from chatserver.wire.commands import Page
from chatserver.wire.fields import Fields, at_most, digits
from chatserver.wire.responses import MAX_ID, check_include

MAX_LIMIT = 100
MAX_SEARCH = 200
MAX_INCLUDE = 20


def parse_page(query: Mapping[str, str], *, search: bool = False) -> Page:
    """Check the query of a list: limit, after, order; `search`: q, too."""
    fields = Fields(query)
    text = fields.take("limit", "20")
    limit = digits(text, 1, MAX_LIMIT)
    if limit is None:
        raise BadRequest(
            f"limit: expected a whole number from 1 to {MAX_LIMIT}, got {text[:60]!r}", param="limit"
        )
    order = fields.take("order", "desc")
    if order not in ("asc", "desc"):
        raise BadRequest(f"order: expected asc or desc, got {order[:60]!r}", param="order")
    after = fields.text("after", None, longest=MAX_ID)
    words = fields.text("q", "", longest=MAX_SEARCH) if search else ""
    fields.done()
    return Page(limit, after or None, order == "desc", words.strip())


def parse_query(pairs: Sequence[tuple[str, str]], *, logprobs: bool = False) -> dict[str, str]:
    """Check the `include` of a query, which may come several times; return the rest. Raises BadRequest."""
    included = [value for name, value in pairs if name in ("include", "include[]")]
    at_most("include", MAX_INCLUDE, "values", included)
    check_include(included, logprobs=logprobs)
    return {name: value for name, value in pairs if name not in ("include", "include[]")}


def list_object(
    values: Sequence[Any], render: Callable[[Any], dict[str, Any]], *, has_more: bool, last: str = ""
) -> dict[str, Any]:
    """Return a page of a list; the ids are "" when it is empty, for OpenAI's types.

    `last`: where the next page goes on, if not behind the last value.
    """
    return page_object([render(value) for value in values], has_more=has_more, last=last)


def page_object(rendered: list[dict[str, Any]], *, has_more: bool, last: str = "") -> dict[str, Any]:
    """Return a page of what is rendered already; see `list_object`."""
    return {
        "object": "list",
        "data": rendered,
        "first_id": rendered[0]["id"] if rendered else "",
        "last_id": last or (rendered[-1]["id"] if rendered else ""),
        "has_more": has_more,
    }
