"""Domain values to bytes and back, exactly.

Every stored value is a JSON array that begins with FORMAT; reading another number is refused, so an
older process never misreads what a newer one wrote. Token ids are packed as little-endian uint32.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import orjson

from chatserver.adapters.valkey import bills
from chatserver.domain.item import Conversation, Item, ItemStatus, Role
from chatserver.domain.response import (
    Difference,
    Failure,
    Finish,
    Ledger,
    Outcome,
    Params,
    Response,
    Status,
    Timing,
    Trim,
    Truncation,
    Usage,
)
from chatserver.errors import BadRequest, Unavailable
from chatserver.ports.caches import CacheReport
from chatserver.ports.registry import EngineReport, EngineState, ExpertLoad, LayerLoad, ServedModel

FORMAT = 1
"""Version of all stored forms. Raise it with any change that an older reader would misread."""

IDS_FORMAT = 2
"""Version of packed token ids."""
LONGEST_OPENING = 64
"""Template tokens before an answer's own for which its place among them is looked for."""
APART = 2**32 - 1

T = TypeVar("T")


def pack(*values: object) -> bytes:
    """Return values as one stored form. Raises BadRequest if one has no JSON form (a lone surrogate, say)."""
    try:
        return orjson.dumps((FORMAT, *values))
    except TypeError as error:
        raise BadRequest(f"expected text and numbers that JSON can carry: {error}") from None


def unpack(data: bytes) -> list[Any]:
    """Return the values of a stored form. Raises Unavailable if another version wrote it."""
    try:
        values = orjson.loads(data)
        version = values.pop(0)
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise unreadable(f"not in a form that this version writes ({error})") from None
    if version != FORMAT:
        raise unreadable(f"in format {version}, this version reads {FORMAT}; upgrade it")
    return values


def unreadable(detail: str) -> Unavailable:
    """Return the error for a stored value that this version cannot read."""
    return Unavailable(f"a stored value is {detail}", code="store_format")


def encode_ids(ids: Sequence[int], template_hash: str, emitted: Sequence[int] = ()) -> bytes:
    """Return token ids with the hash of the template that they were made with (at most 255 bytes).

    `emitted` is nearly always a part of them, and then only its place is written:

        format 1 │ length 1 │ hash │ lead 4 │ count 4 │ ids │ emitted, if lead is APART
    """
    mark, known, written = template_hash.encode(), tuple(ids), tuple(emitted)
    count = len(written)
    lead = next((at for at in range(LONGEST_OPENING) if known[at : at + count] == written), APART)
    apart = written if lead == APART else ()
    return struct.pack(
        f"<BB{len(mark)}sII{len(known) + len(apart)}I",
        *(IDS_FORMAT, len(mark), mark, lead, count, *known, *apart),
    )


def decode_ids(data: bytes) -> tuple[tuple[int, ...], str, tuple[int, ...]]:
    """Return (ids, template hash, emitted)."""
    if data[0] != IDS_FORMAT:
        raise unreadable(f"in format {data[0]}, this version reads {IDS_FORMAT}; upgrade it")
    start = 10 + data[1]
    lead, count = struct.unpack_from("<II", data, start - 8)
    words: tuple[int, ...] = struct.unpack_from("<%dI" % ((len(data) - start) >> 2), data, start)  # noqa: UP031 hot
    mark = data[2 : start - 8].decode()
    if not count:
        return words, mark, ()
    if lead == APART:
        return words[:-count], mark, words[-count:]
    return words, mark, words[lead : lead + count]


def encode_item(item: Item) -> bytes:
    """Return an item without its id and parent: where it lies says them."""
    return pack(item.role, item.text, item.status, item.response_id, item.created_at, *item.cost)


def decode_items(stored: Sequence[bytes], names: Sequence[str]) -> list[Item]:
    """Return the items that lie under `names`, each one's parent being the next name; the last name may be ''.

    Parsed in one go: a branch has thousands. Raises Unavailable if another version wrote one of them.
    """
    items: list[Item] = []
    rows: list[list[Any]] = unpack(b"[%d,%b]" % (FORMAT, b",".join(stored))) if stored else []
    for i, row in enumerate(rows):
        if row[0] != FORMAT:
            raise unreadable(f"in format {row[0]}, this version reads {FORMAT}; upgrade it")
        _, role, text, status, response_id, created_at, *cost = row
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
            )
        )
    return items


def encode_params(params: Params) -> bytes:
    """Return checked parameters."""
    return pack(params)


def decode_params(data: bytes) -> Params:
    """Return checked parameters."""
    return _read(_params, unpack(data)[0])


def encode_outcome(outcome: Outcome) -> bytes:
    """Return how a response ended, its ledger without the lists (see `Ledger`)."""
    ledger = outcome.ledger
    return pack(replace(outcome, ledger=ledger.bare) if ledger else outcome)


def decode_outcome(data: bytes) -> Outcome:
    """Return how a response ended."""
    return outcome_from(unpack(data)[0])


def outcome_from(fields: dict[str, Any]) -> Outcome:
    """Return an outcome from its JSON form."""
    return _read(_outcome, fields)


def encode_report(report: EngineReport) -> bytes:
    """Return an engine's report."""
    return pack(report)


def decode_report(data: bytes) -> EngineReport:
    """Return an engine's report."""
    return _read(_report, unpack(data)[0])


def encode_model(model: ServedModel) -> bytes:
    """Return a served model."""
    return pack(model)


def decode_model(data: bytes) -> ServedModel:
    """Return a served model."""
    return _read(_model, unpack(data)[0])


def encode_experts(load: ExpertLoad) -> bytes:
    """Return what an engine's experts did."""
    return pack(load)


def decode_experts(data: bytes) -> ExpertLoad:
    """Return what an engine's experts did."""
    return _read(_experts, unpack(data)[0])


def encode_cache_report(report: CacheReport) -> bytes:
    """Return what an engine's cache holds of a conversation."""
    return pack(report)


def decode_cache_report(data: bytes) -> CacheReport:
    """Return what an engine's cache holds of a conversation."""
    return _read(lambda fields: CacheReport(**fields), unpack(data)[0])


def encode_conversation(conversation: Conversation) -> list[bytes | str | int]:
    """Return a conversation as field, value, field, value; what is None is left out."""
    pairs: list[bytes | str | int] = ["v", FORMAT, "tenant", conversation.tenant]
    pairs += ["created_at", conversation.created_at]
    pairs += ["updated_at", conversation.updated_at or conversation.created_at]
    if conversation.title:
        pairs += ["title", conversation.title]
    if conversation.metadata is not None:
        pairs += ["metadata", pack(conversation.metadata)]
    return pairs


def decode_conversation(conversation_id: str, flat: Sequence[bytes]) -> Conversation:
    """Return a conversation from what HGETALL answered."""
    fields = _fields(flat)
    return Conversation(
        conversation_id,
        fields[b"tenant"].decode(),
        int(fields[b"created_at"]),
        int(fields[b"updated_at"]),
        fields.get(b"title", b"").decode(),
        unpack(fields[b"metadata"])[0] if b"metadata" in fields else None,
        _text(fields.get(b"head")),
        _text(fields.get(b"active")),
        int(fields.get(b"tokens", 0)),
    )


def encode_response(response: Response) -> list[bytes | str | int]:
    """Return a new response as field, value, field, value; what is None is left out."""
    pairs: list[bytes | str | int] = ["v", FORMAT, "tenant", response.tenant]
    pairs += ["params", encode_params(response.params), "created_at", response.created_at]
    pairs += ["status", response.status, "claim", response.claim, "stored", int(response.stored)]
    pairs += ["inputs", pack(*response.inputs), "item_id", response.item_id]
    pairs += ["accepted_at", repr(float(response.accepted_at))]
    optional = (
        ("conversation", response.conversation),
        ("parent", response.parent),
        ("previous", response.previous),
        ("continues", response.continues),
        ("siblings", pack(*response.siblings) if response.siblings else None),
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
    fields = _fields(flat)
    outcome = fields.get(b"outcome")
    bill = bills.read_head(fields[b"bill"]) if b"bill" in fields else None
    return Response(
        id=response_id,
        tenant=fields[b"tenant"].decode(),
        params=decode_params(fields[b"params"]),
        created_at=int(fields[b"created_at"]),
        status=Status(fields[b"status"].decode()),
        conversation=_text(fields.get(b"conversation")),
        parent=_text(fields.get(b"parent")),
        inputs=tuple(unpack(fields[b"inputs"])),
        previous=_text(fields.get(b"previous")),
        continues=_text(fields.get(b"continues")),
        siblings=tuple(unpack(fields[b"siblings"])) if b"siblings" in fields else (),
        beside=_text(fields.get(b"beside")),
        accepted_at=float(fields[b"accepted_at"]),
        item_id=fields[b"item_id"].decode(),
        stored=fields[b"stored"] == b"1",
        claim=int(fields[b"claim"]),
        owner=_text(fields.get(b"owner")),
        stop_asked=fields.get(b"stop") == b"1",
        outcome=None if outcome is None else decode_outcome(outcome),
        payer=bill.key if bill else "",
        price=bill.price if bill else None,
    )


_ROLES = {role.value: role for role in Role}
_ITEM_STATES = {status.value: status for status in ItemStatus}


def _fields(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    if fields.get(b"v") != b"%d" % FORMAT:
        raise unreadable(
            f"in format {fields.get(b'v', b'?').decode()}, this version reads {FORMAT}; upgrade it"
        )
    return fields


def _text(value: bytes | None) -> str | None:
    return value.decode() if value else None


def _read(build: Callable[[dict[str, Any]], T], fields: dict[str, Any]) -> T:
    try:
        return build(fields)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise unreadable(f"not in a form that this version writes ({error!r})") from None


def _params(fields: dict[str, Any]) -> Params:
    fields["stop"] = tuple(fields["stop"])
    fields["messages"] = tuple((role, text) for role, text in fields["messages"])
    fields["truncation"] = Truncation(fields["truncation"])
    return Params(**fields)


def _outcome(fields: dict[str, Any]) -> Outcome:
    item, ledger, failure = fields["item"], fields["ledger"], fields["failure"]
    fields["status"], fields["finish"] = Status(fields["status"]), Finish(fields["finish"])
    fields["usage"], fields["timing"] = Usage(**fields["usage"]), Timing(**fields["timing"])
    fields["item"] = None if item is None else _item(item)
    fields["ledger"] = None if ledger is None else _ledger(ledger)
    fields["failure"] = None if failure is None else Failure(**failure)
    return Outcome(**fields)


def _item(fields: dict[str, Any]) -> Item:
    fields["role"], fields["status"] = Role(fields["role"]), ItemStatus(fields["status"])
    fields["cost"] = tuple(fields.get("cost", ()))
    return Item(**fields)


def _ledger(fields: dict[str, Any]) -> Ledger:
    for name in ("kept", "dropped", "lengths"):
        fields[name] = tuple(fields.get(name, ()))
    trim = fields.get("trim")
    fields["trim"] = None if trim is None else Trim(**trim)
    difference = fields.get("difference")
    fields["difference"] = None if difference is None else Difference(**difference)
    return Ledger(**fields)


def _model(fields: dict[str, Any]) -> ServedModel:
    fields["aliases"] = tuple(fields["aliases"])
    return ServedModel(**fields)


def _report(fields: dict[str, Any]) -> EngineReport:
    fields["state"] = EngineState(fields["state"])
    fields["model"] = None if fields["model"] is None else _model(fields["model"])
    return EngineReport(**fields)


def _experts(fields: dict[str, Any]) -> ExpertLoad:
    layers = tuple(LayerLoad(**{**layer, "ranks": tuple(layer["ranks"])}) for layer in fields["layers"])
    return ExpertLoad(layers, fields["rank_imbalance"])
