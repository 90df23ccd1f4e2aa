"""Items of a conversation as clients read them: one, or a page of a branch.

An answer is kept as one item and shown as several, its parts. A page counts what is shown, so it may begin or end
within an answer:

    kept    question │ answer                       │ question
    shown   message  │ reasoning  message  call     │ message
            └── limit=2, last_id ──┘ └── after=last_id, limit=2 …
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chatserver.domain.ids import answer_of, summary_id
from chatserver.domain.item import Item, Role
from chatserver.domain.response import Usage
from chatserver.errors import BadRequest, NotFound
from chatserver.wire.commands import Page
from chatserver.wire.items import item_objects
from chatserver.wire.lists import page_object
from chatserver.wire.response_objects import usage_object


@dataclass(frozen=True, slots=True)
class Branch:
    """Which items to list: of all branches, of the one that ends with `leaf`, or of one that goes `through` an item.

    `siblings`: whether to say of each item what stands beside it.
    """

    everything: bool = False
    leaf: str | None = None
    through: str | None = None
    siblings: bool = False


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


def within(items: Sequence[Item], page: Page) -> list[Item]:
    """Return the items of a branch that a page may show something of, in its order; `item_page` cuts it.

    The first is the one that `page.after` is a part of, behind it come as many as the page could show, and one more.
    Raises BadRequest if `page.after` is not in the branch.
    """
    ordered = list(reversed(items)) if page.newest_first else list(items)
    start = 0 if page.after is None else _place(ordered, page.after)
    return ordered[start : start + page.limit + 2]


def item_page(
    items: Sequence[Item],
    page: Page,
    *,
    beside: Mapping[str | None, Sequence[str]] | None = None,
    leaf: str = "",
) -> dict[str, Any]:
    """Return a page of what `within` found, summaries added. `beside`, `leaf`: see `items_of`."""
    shown = [
        (item.id, part)
        for item, parts in zip(items, _shown(items, beside, leaf), strict=True)
        for part in (reversed(parts) if page.newest_first else parts)
    ]
    start = 0
    if page.after is not None:
        ends = [place for place, (_, part) in enumerate(shown, 1) if part["id"] == page.after]
        # an answer of calls alone has no part with the answer's own id: then all of it is behind us
        ends = ends or [place for place, (name, _) in enumerate(shown, 1) if name == answer_of(page.after)]
        start = ends[-1]
    found = [part for _, part in shown[start : start + page.limit]]
    return page_object(found, has_more=start + page.limit < len(shown))


def item_list(items: Sequence[Item]) -> dict[str, Any]:
    """Return all of some items, each with all of its parts."""
    return page_object([part for parts in _shown(items, None, "") for part in parts], has_more=False)


def _shown(
    items: Sequence[Item], beside: Mapping[str | None, Sequence[str]] | None, leaf: str
) -> Iterable[list[dict[str, Any]]]:
    """Return the parts of each item. The first one's parent is the last part of what the item follows, if known."""
    last_part = {item.id: item_objects(item)[-1]["id"] for item in items if item.parts}
    for item in items:
        shown = items_of(item, beside, leaf)
        shown[0]["parent"] = last_part.get(item.parent or "", item.parent)
        yield shown


def _place(items: Sequence[Item], after: str) -> int:
    """Return where the item is that has this part, or that a summary with this id ends with. Raises BadRequest."""
    name = answer_of(after)
    for place, item in enumerate(items):
        if item.id == name or (after.startswith("cmp_") and summary_id(item.id) == after):
            return place
    raise BadRequest(f"after: no item {after[:60]!r} in this list", param="after")
