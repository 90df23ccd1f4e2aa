"""Bills as bytes: who pays, written when an answer begins, and for what, added by the step that ends it."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from chatserver.domain.item import Item
from chatserver.domain.money import Price
from chatserver.domain.response import Response, Usage


@dataclass(frozen=True, slots=True)
class Bill:
    """Who pays for an answer, at which price."""

    key: str
    tenant: str
    model: str
    created_at: int
    price: Price | None

    def cost(self, usage: Usage) -> int | str:
        """Return the cost in picos, or '' without a price: as the script takes it."""
        if self.price is None:
            return ""
        return self.price.cost(prompt=usage.prompt, cached=usage.cached, output=usage.output)


def head(response: Response) -> bytes:
    """Return what is kept with a response so that its end can write its bill."""
    bill = Bill(response.payer, response.tenant, response.params.model, response.created_at, response.price)
    return orjson.dumps(bill)


def read_head(data: bytes) -> Bill:
    """Return who pays."""
    fields = orjson.loads(data)
    price = fields.pop("price")
    return Bill(**fields, price=Price(**price) if price else None)


def tail(response: Response, usage: Usage) -> str:
    """Return what the end adds."""
    usage = response.billed(usage)
    return f"\n{usage.prompt} {usage.cached} {usage.output}"


def of_item(payer: Response, item: Item) -> bytes:
    """Return the whole bill over an item that was made beside the answers; b"" if nobody pays, or it cost nothing."""
    if not payer.payer or not item.cost:
        return b""
    return head(payer) + b"\n%d %d %d" % item.cost


def decode(data: bytes) -> tuple[Bill, Usage]:
    """Return a whole bill."""
    first, _, last = data.rpartition(b"\n")
    prompt, cached, output = map(int, last.split())
    return read_head(first), Usage(prompt, cached, output)
