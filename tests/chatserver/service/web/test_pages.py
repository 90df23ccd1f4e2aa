"""How long the pages of history are, and how their records are joined."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chatserver.domain.tape import Delta, Ended, Record, merge
from chatserver.service.web import pages
from chatserver.service.web.pages import join, page_after
from tests.chatserver.service.web.tapes import END


def test_pages_are_as_long_as_their_tokens_allow():
    """Records of one token are read by the hundred, large ones one by one, and nothing learned changes nothing."""

    def of(width: int) -> list[Record]:
        return [Record(width * (n + 1), Delta(("x",) * width, (1,) * width)) for n in range(8)]

    after = [page_after(records, 8) for records in (of(1), of(64), of(10_000), [])]
    assert after == [pages.PAGE, pages.READ_TOKENS // 64, 1, 8]


@given(st.lists(st.integers(1, 4), max_size=12), st.integers(0, 12))
def test_join_is_the_same_as_merging_one_by_one(widths, end):
    last, records = -1, []
    for index, width in enumerate(widths):
        last += width if index != end else 1
        body = Ended(END) if index == end else Delta(tuple("abcd"[:width]), tuple(range(width)))
        records.append(Record(last, body))
    expected: list[Record] = []
    for record in records:
        merged = merge(expected[-1], record) if expected else None
        expected[-1:] = [merged] if merged else [*expected[-1:], record]
    assert join(records) == expected
