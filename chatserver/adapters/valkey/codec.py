"""Conversations, items and responses to bytes and back, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from chatserver.adapters.valkey import bills, packing
from chatserver.domain.item import Conversation, Item, ItemStatus, Message, Part, PartKind, Role
from chatserver.domain.ledger import Difference, Ledger, Trim
from chatserver.domain.logprob import Logprob
from chatserver.domain.response import (
    Failure,
    Finish,
    Outcome,
    Params,
    Response,
    Status,
    Timing,
    Truncation,
    Usage,
)


def encode_item(item: Item) -> bytes:
    """Return an item without its id and parent: where it lies says them."""
    parts = ([_part_values(part) for part in item.parts],) if item.parts else ()
    return packing.pack(
        item.role, item.text, item.status, item.response_id, item.created_at, *item.cost, *parts
    )


def decode_items(stored: Sequence[bytes], names: Sequence[str]) -> list[Item]:
    """Return the items that lie under `names`, each one's parent being the next name; the last name may be ''.

    Parsed in one go: a branch has thousands. Raises Unavailable if another version wrote one of them.
    """
    items: list[Item] = []
    rows: list[list[Any]] = packing.unpack(b"[%d,%b]" % (packing.FORMAT, b",".join(stored))) if stored else []
    for i, row in enumerate(rows):
        if row[0] != packing.FORMAT:
            raise packing.unreadable(f"in format {row[0]}, this version reads {packing.FORMAT}; upgrade it")
        _, role, text, status, response_id, created_at, *cost = row
        parts = cost.pop() if cost and isinstance(cost[-1], list) else ()
        parent = names[i + 1] or None
        items.append(
            Item(
                names[i],
                parent,
                _ROLES[role],
                text,
                _ITEM_STATES[status],
                response_id,
                created_at,
                tuple(cost),
                tuple(_part(part) for part in parts),
            )
        )
    return items


SEEN, SEEN_LENGTH = 256, 1024
"""How many encoded parameters are kept beside what they mean, and how many bytes one may have."""
_seen: dict[bytes, Params] = {}


def encode_params(params: Params) -> bytes:
    """Return checked parameters."""
    return packing.pack(params)


def decode_params(data: bytes) -> Params:
    """Return checked parameters. Those that say how to answer, not what to, are the same in most requests: kept."""
    if (params := _seen.get(data)) is not None:
        return params
    params = packing.read(_params, packing.unpack(data)[0])
    if not params.messages and len(data) <= SEEN_LENGTH:
        if len(_seen) >= SEEN:
            del _seen[next(iter(_seen))]
        _seen[data] = params
    return params


def params_from(fields: dict[str, Any]) -> Params:
    """Return checked parameters from their JSON form."""
    return packing.read(_params, fields)


def encode_outcome(outcome: Outcome) -> bytes:
    """Return how a response ended, its ledger without the lists (see `Ledger`)."""
    ledger = outcome.ledger
    return packing.pack(replace(outcome, ledger=ledger.bare) if ledger else outcome)


def decode_outcome(data: bytes) -> Outcome:
    """Return how a response ended."""
    return outcome_from(packing.unpack(data)[0])


def outcome_from(fields: dict[str, Any]) -> Outcome:
    """Return an outcome from its JSON form."""
    return packing.read(_outcome, fields)


def logprobs_from(values: Sequence[dict[str, Any]]) -> tuple[Logprob, ...]:
    """Return log-probabilities from their JSON form."""
    return tuple(
        Logprob(
            value["token"], value["value"], tuple((token, likely) for token, likely in value["likeliest"])
        )
        for value in values
    )


def encode_conversation(conversation: Conversation) -> list[bytes | str | int]:
    """Return a conversation as field, value, field, value; what is None is left out."""
    pairs: list[bytes | str | int] = ["v", packing.FORMAT, "tenant", conversation.tenant]
    pairs += ["created_at", conversation.created_at]
    pairs += ["updated_at", conversation.updated_at or conversation.created_at]
    if conversation.title:
        pairs += ["title", conversation.title]
    if conversation.metadata is not None:
        pairs += ["metadata", packing.pack(conversation.metadata)]
    return pairs


def decode_conversation(conversation_id: str, flat: Sequence[bytes]) -> Conversation:
    """Return a conversation from what HGETALL answered."""
    fields = packing.hash_fields(flat)
    return Conversation(
        conversation_id,
        fields[b"tenant"].decode(),
        int(fields[b"created_at"]),
        int(fields[b"updated_at"]),
        fields.get(b"title", b"").decode(),
        packing.unpack(fields[b"metadata"])[0] if b"metadata" in fields else None,
        packing.text(fields.get(b"head")),
        packing.text(fields.get(b"active")),
        int(fields.get(b"tokens", 0)),
    )


def encode_response(response: Response) -> list[bytes | str | int]:
    """Return a new response as field, value, field, value; what is None is left out."""
    pairs: list[bytes | str | int] = ["v", packing.FORMAT, "tenant", response.tenant]
    pairs += ["params", encode_params(response.params), "created_at", response.created_at]
    pairs += ["status", response.status, "claim", response.claim, "stored", int(response.stored)]
    pairs += ["inputs", packing.pack(*response.inputs), "item_id", response.item_id]
    pairs += ["accepted_at", repr(float(response.accepted_at))]
    optional = (
        ("fleeting", "1" if response.fleeting else None),
        ("conversation", response.conversation),
        ("parent", response.parent),
        ("previous", response.previous),
        ("continues", response.continues),
        ("siblings", packing.pack(*response.siblings) if response.siblings else None),
        ("beside", response.beside),
        ("owner", response.owner),
        ("stop", "1" if response.stop_asked else None),
        ("outcome", None if response.outcome is None else encode_outcome(response.outcome)),
        ("bill", bills.head(response) if response.payer else None),
    )
    for name, value in optional:
        if value is not None:
            pairs += [name, value]
    return pairs


def decode_response(response_id: str, flat: Sequence[bytes]) -> Response:
    """Return a response from what HGETALL answered."""
    fields = packing.hash_fields(flat)
    outcome = fields.get(b"outcome")
    bill = bills.read_head(fields[b"bill"]) if b"bill" in fields else None
    return Response(
        id=response_id,
        tenant=fields[b"tenant"].decode(),
        params=decode_params(fields[b"params"]),
        created_at=int(fields[b"created_at"]),
        status=Status(fields[b"status"].decode()),
        conversation=packing.text(fields.get(b"conversation")),
        parent=packing.text(fields.get(b"parent")),
        inputs=tuple(packing.unpack(fields[b"inputs"])),
        previous=packing.text(fields.get(b"previous")),
        continues=packing.text(fields.get(b"continues")),
        siblings=tuple(packing.unpack(fields[b"siblings"])) if b"siblings" in fields else (),
        beside=packing.text(fields.get(b"beside")),
        accepted_at=float(fields[b"accepted_at"]),
        item_id=fields[b"item_id"].decode(),
        stored=fields[b"stored"] == b"1",
        fleeting=fields.get(b"fleeting") == b"1",
        claim=int(fields[b"claim"]),
        owner=packing.text(fields.get(b"owner")),
        stop_asked=fields.get(b"stop") == b"1",
        outcome=None if outcome is None else decode_outcome(outcome),
        payer=bill.key if bill else "",
        price=bill.price if bill else None,
    )


_ROLES = {role.value: role for role in Role}
_ITEM_STATES = {status.value: status for status in ItemStatus}


def _params(fields: dict[str, Any]) -> Params:
    fields["stop"] = tuple(fields["stop"])
    fields["logit_bias"] = tuple([(token, bias) for token, bias in fields.get("logit_bias", ())])
    fields["messages"] = tuple([_message(message) for message in fields["messages"]])
    fields["truncation"] = Truncation(fields["truncation"])
    return Params(**fields)


def _outcome(fields: dict[str, Any]) -> Outcome:
    item, ledger, failure = fields["item"], fields["ledger"], fields["failure"]
    fields["status"], fields["finish"] = Status(fields["status"]), Finish(fields["finish"])
    fields["usage"], fields["timing"] = Usage(**fields["usage"]), Timing(**fields["timing"])
    fields["item"] = None if item is None else _item(item)
    fields["ledger"] = None if ledger is None else _ledger(ledger)
    fields["failure"] = None if failure is None else Failure(**failure)
    fields["logprobs"] = tuple(logprobs_from(part) for part in fields.get("logprobs", ()))
    return Outcome(**fields)


def _item(fields: dict[str, Any]) -> Item:
    fields["role"], fields["status"] = Role(fields["role"]), ItemStatus(fields["status"])
    fields["cost"] = tuple(fields.get("cost", ()))
    fields["parts"] = tuple(_part(list(part.values())) for part in fields.get("parts", ()))
    return Item(**fields)


def _message(fields: dict[str, Any]) -> Message:
    parts = tuple([_part(list(part.values())) for part in fields["parts"]])
    return Message(fields["role"], fields["text"], parts)


def _part(values: Sequence[Any]) -> Part:
    kind, *rest = values
    return Part(PartKind(kind), *rest)


def _part_values(part: Part) -> tuple[object, ...]:
    return part.kind, part.text, part.call_id, part.name, part.width


def _ledger(fields: dict[str, Any]) -> Ledger:
    for name in ("kept", "dropped", "lengths"):
        fields[name] = tuple(fields.get(name, ()))
    trim = fields.get("trim")
    fields["trim"] = None if trim is None else Trim(**trim)
    difference = fields.get("difference")
    fields["difference"] = None if difference is None else Difference(**difference)
    return Ledger(**fields)
