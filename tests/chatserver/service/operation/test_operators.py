"""What the operator's commands print."""

from dataclasses import replace

import pytest

from chatserver.domain.response import Usage
from chatserver.ports.accounts import Used
from chatserver.service.operation.operators import _cost

ROW = Used("key_0", "m", "2026-11-22", 3, Usage(10, 0, 5), 1_500_000_000_000, 0, "EUR")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (ROW, "1.50 EUR"),
        (replace(ROW, unpriced=2), "1.50 EUR + 2 without a price"),
        (replace(ROW, cost=0, unpriced=3, currency=""), "no price"),
    ],
)
def test_what_has_no_price_was_not_free(row, told):
    """It used to be 0.00."""
    assert _cost(row) == told
