"""What the API's objects hold, as typed values; `raw` is the whole object."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of an answer; `cached` and `reasoning` are parts of `input` and `output`."""

    input: int
    cached: int
    output: int
    reasoning: int
    cost: str | None
    """The exact amount and its currency, as in "0.00012 USD"; None without prices."""


@dataclass(frozen=True, slots=True)
class Result:
    """An answer that has ended, or how it stands; printed it is its text.

    `status`: completed, incomplete, cancelled, failed, or not ended.
    """

    id: str
    conversation_id: str | None
    status: str
    model: str
    text: str
    usage: Usage | None
    error: tuple[str, str] | None
    """(code, message) of an answer that failed."""
    raw: dict[str, Any] = field(repr=False)

    def __str__(self) -> str:
        return self.text

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.status not in ("queued", "in_progress")


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation. `head`: its last item. `active`: the response that is being written, if one is."""

    id: str
    title: str | None
    head: str | None
    active: str | None
    raw: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Item:
    """An item of a conversation; `role` is "" and `text` may be "" for what is no message."""

    id: str
    type: str
    role: str
    text: str
    raw: dict[str, Any] = field(repr=False)


def result_of(response: dict[str, Any]) -> Result:
    """Return the typed form of a response object. Raises KeyError, TypeError for what is none."""
    error, conversation = response.get("error"), response.get("conversation")
    return Result(
        id=str(response["id"]),
        conversation_id=conversation and str(conversation["id"]),
        status=str(response["status"]),
        model=str(response["model"]),
        text="".join(_text(item) for item in response["output"] if item.get("type") == "message"),
        usage=_usage(response.get("usage")),
        error=error and (str(error.get("reason") or error["code"]), str(error["message"])),
        raw=response,
    )


def conversation_of(data: dict[str, Any]) -> Conversation:
    """Return the typed form of a conversation object."""
    return Conversation(str(data["id"]), data.get("title"), data.get("head"), data.get("active"), data)


def item_of(data: dict[str, Any]) -> Item:
    """Return the typed form of an item object."""
    return Item(str(data["id"]), str(data["type"]), str(data.get("role") or ""), _text(data), data)


def _text(item: dict[str, Any]) -> str:
    return "".join(str(part.get("text") or "") for part in item.get("content") or ())


def _usage(usage: dict[str, Any] | None) -> Usage | None:
    if usage is None:
        return None
    cost = usage.get("cost")
    return Usage(
        input=int(usage["input_tokens"]),
        cached=int(usage["input_tokens_details"]["cached_tokens"]),
        output=int(usage["output_tokens"]),
        reasoning=int(usage["output_tokens_details"]["reasoning_tokens"]),
        cost=cost and f"{cost['amount']} {cost['currency']}",
    )
