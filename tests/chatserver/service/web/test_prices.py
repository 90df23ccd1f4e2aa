"""Prices are decimals, costs are exact, and a mistake in the table names its place."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatserver.domain.money import MAX_AMOUNT, Price, amount, shown
from chatserver.errors import StartupError
from chatserver.ports.registry import ServedModel
from chatserver.service.web.prices import Prices

EXAMPLE = Path(__file__).parents[4] / "chatserver/deploy/prices.example.toml"
V3 = ServedModel("DeepSeek-V3", ("deepseek-chat",), 4096)


def read(tmp_path: Path, text: str) -> Prices:
    path = tmp_path / "prices.toml"
    path.write_text(text)
    return Prices.read(path)


def test_the_example_is_a_table():
    """And says what a turn of a long conversation costs: 30,000 cached tokens, 500 new ones, 400 written."""
    price = Prices.read(EXAMPLE).of(V3)
    assert price == Price(70_000, 270_000, 1_100_000, "USD")
    assert shown(price.cost(prompt=30_500, cached=30_000, output=400)) == "0.002675"


def test_models_are_found_by_alias_in_any_case(tmp_path):
    prices = read(
        tmp_path, 'currency = "CNY"\n[models.DEEPSEEK-chat]\nhit = 0.5\nmiss = 2\noutput = 8.000001\n'
    )
    assert prices.of(V3) == Price(500_000, 2_000_000, 8_000_001, "CNY")
    assert prices.of(ServedModel("other", (), 1)) is None and not Prices() and prices
    assert Prices.read(None).of(V3) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[models.a]\nhit = 1\nmiss = 1\n", "models.a: expected exactly hit, miss and output"),
        ("[models.a]\nhit = 1\nmiss = 1\noutput = -1\n", "models.a.output: expected a number from 0"),
        ("[models.a]\nhit = 1\nmiss = 1\noutput = nan\n", "models.a.output"),
        ("[models.a]\nhit = '1'\nmiss = 1\noutput = 1\n", "models.a.hit"),
        ("[models.a]\nhit = true\nmiss = 1\noutput = 1\n", "models.a.hit"),
        ("[models.a]\nhit = 0.0000001\nmiss = 1\noutput = 1\n", "models.a.hit"),
        ("[models.a]\nhit = 1e9\nmiss = 1\noutput = 1\n", "models.a.hit"),
        ("currency = 'dollars'\n", "currency: expected three capital letters"),
        ("curency = 'USD'\n", "curency: expected nothing but"),
        ("models = 3\n", "models: expected tables"),
        ("[models\n", "is not TOML"),
    ],
)
def test_mistakes_name_the_place(tmp_path, text, told):
    with pytest.raises(StartupError) as error:
        read(tmp_path, text)
    assert told in error.value.message and "CHATSERVER_PRICES" in error.value.message
    assert error.value.exit_code == 2 and "\n" not in error.value.message


def test_a_file_that_is_not_there():
    with pytest.raises(StartupError, match="cannot read /no/such/file"):
        Prices.read(Path("/no/such/file"))


@given(st.integers(0, MAX_AMOUNT))
def test_amounts_are_shown_exactly(picos):
    assert amount(shown(picos)) == picos and Decimal(shown(picos)) == Decimal(picos).scaleb(-12)


@given(*[st.integers(0, 10**6)] * 3, *[st.decimals(0, 100, places=6)] * 3)
def test_costs_are_what_decimal_says(cached, missed, output, hit, miss, out):
    price = Price(amount(hit, places=6), amount(miss, places=6), amount(out, places=6))
    picos = price.cost(prompt=cached + missed, cached=cached, output=output)
    assert Decimal(shown(picos)) == (cached * hit + missed * miss + output * out) / 10**6


@pytest.mark.parametrize("text", ["", "x", "-1", "1e30", "nan", "inf", "0.0000000000001"])
def test_no_amounts(text):
    with pytest.raises(ValueError, match="expected"):
        amount(text)
