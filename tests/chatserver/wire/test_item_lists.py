"""Pages of items count what clients see, wherever they cut an answer."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from chatserver.domain.ids import summary_id
from chatserver.domain.item import Item, Part, PartKind, Role
from chatserver.wire.commands import Page
from chatserver.wire.item_lists import item_list, item_page, within

KINDS = st.lists(st.sampled_from([PartKind.REASONING, PartKind.TEXT, PartKind.CALL]), max_size=4).filter(
    lambda kinds: (PartKind.TEXT, PartKind.TEXT) not in pairwise(kinds)
)


@st.composite
def branches(draw) -> list[Item]:
    """A branch of questions and answers of up to four parts, some with a summary that ends with them."""
    made: list[Item] = []
    for number, kinds in enumerate(draw(st.lists(KINDS, max_size=9))):
        parts = tuple(Part(kind, str(index), width=1) for index, kind in enumerate(kinds))
        role = Role.ASSISTANT if kinds else Role.USER
        made.append(Item(f"msg_{number:02}{'a' * 30}", made[-1].id if made else None, role, "t", parts=parts))
    return made


def with_summaries(items: list[Item], covered: set[str]) -> list[Item]:
    """As `Tree.with_summaries` adds them."""
    found = []
    for item in items:
        if item.id in covered:
            found.append(Item(summary_id(item.id), item.id, Role.SUMMARY, "s", cost=(1, 0, 1)))
        found.append(item)
    return found


@given(branches(), st.integers(1, 7), st.booleans(), st.data())
def test_pages_make_the_whole(items, limit, newest_first, data):
    """From page to page by `last_id` everything comes once and in order, `limit` at a time; from any id, the rest."""
    covered = set(data.draw(st.lists(st.sampled_from([i.id for i in items]), max_size=3))) if items else set()

    def page_after(after: str | None, most: int) -> dict:
        page = Page(most, after, newest_first)
        return item_page(with_summaries(within(items, page), covered), page)

    whole = page_after(None, 100)
    assert whole["has_more"] is False
    if not newest_first:
        assert whole["data"] == item_list(with_summaries(items, covered))["data"]
    found, after = [], None
    while True:
        page = page_after(after, limit)
        found += page["data"]
        assert page["has_more"] == (len(found) < len(whole["data"]))
        if not page["has_more"]:
            break
        assert len(page["data"]) == limit
        after = page["last_id"]
    names = [part["id"] for part in whole["data"]]
    assert [part["id"] for part in found] == names and len(set(names)) == len(names)
    for place, name in enumerate(names):
        assert [part["id"] for part in page_after(name, limit)["data"]] == names[
            place + 1 : place + 1 + limit
        ]


@given(branches().filter(len), st.integers(1, 7), st.data())
def test_after_an_answers_own_id_is_behind_all_of_it(items, limit, data):
    """Where no part has the answer's id."""
    item = data.draw(st.sampled_from(items))
    page = Page(limit, item.id, False)
    shown = item_list(items)["data"]
    parts = {part["id"] for part in item_list([item])["data"]}
    if item.id in parts:
        parts = {item.id}
    last = max(place for place, part in enumerate(shown) if part["id"] in parts)
    got = item_page(within(items, page), page)["data"]
    assert [part["id"] for part in got] == [part["id"] for part in shown[last + 1 : last + 1 + limit]]
