"""Pages of lists, as queries ask for them."""

from __future__ import annotations

import pytest

from chatserver.errors import BadRequest
from chatserver.wire.lists import MAX_LIMIT, parse_page


@pytest.mark.parametrize("limit", ["1", "020", str(MAX_LIMIT)])
def test_a_page_is_as_long_as_asked_for(limit):
    assert parse_page({"limit": limit}).limit == int(limit)


@pytest.mark.parametrize(
    "limit", ["", "0", "-1", "+1", "1.0", "٣", str(MAX_LIMIT + 1), "000000001000000", "0" * 20 + "1" * 5000]
)
def test_no_digits_make_a_page_longer_than_there_may_be(limit):
    """Whatever stands before them: an unbounded page is as much work and memory as somebody likes."""
    with pytest.raises(BadRequest, match=rf"limit: expected a whole number from 1 to {MAX_LIMIT}, got"):
        parse_page({"limit": limit})
