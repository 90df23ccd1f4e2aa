"""What the operator's commands print."""

from dataclasses import replace

import orjson
import pytest

from chatserver.__main__ import main
from chatserver.domain.response import Usage
from chatserver.ports.accounts import Used
from chatserver.service.operation.operators import UNPRICED, _cost

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


@pytest.mark.parametrize(
    ("spend", "prices", "warned"),
    [("5", False, True), ("5", True, False), ("", False, False), ("none", False, False)],
)
def test_a_limit_of_money_needs_prices(spend, prices, warned, tmp_path, monkeypatch, capsys):
    """One line on stderr, behind a key that is made all the same; programs read what is on stdout."""
    monkeypatch.delenv("CHATSERVER_PRICES", raising=False)
    if prices:
        monkeypatch.setenv("CHATSERVER_PRICES", str(tmp_path / "prices.toml"))
    place = ("--json", "--data-dir", str(tmp_path))
    more = ("--monthly-spend", spend) if spend and spend != "none" else ()
    assert main(["keys", "create", "--tenant", "acme", *more, *place]) == 0
    told = capsys.readouterr()
    made = orjson.loads(told.out)
    if spend == "none":
        assert main(["keys", "limit", made["id"], "--monthly-spend", "none", *place]) == 0
        told = capsys.readouterr()
    assert told.err == (f"chatserver: {UNPRICED}\n" if warned else "")
