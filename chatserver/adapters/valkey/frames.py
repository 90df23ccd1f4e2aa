"""Records and bundles as bytes.

    bundle   ┌ format u8 ┬ section ┬ section … ┐
    section  ┌ id length u8 ┬ record count u16 ┬ length of the records u32 ┬ id ┬ record … ┐
    record   ┌ last u32 ┬ body length u32 ┬ body ┐

All numbers are little-endian. A section is made once and joined into each bundle that needs it; its
length lets a reader skip tapes that it does not follow. A body is a stored form (see codec).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

from chatserver.adapters.valkey import codec, packing
from chatserver.domain.item import PartKind
from chatserver.domain.tape import (
    Accepted,
    Body,
    Delta,
    Ended,
    Interrupted,
    ItemClosed,
    ItemOpened,
    Prefilled,
    Queued,
    Record,
    Started,
)
from chatserver.ports.tapes import Bundle

_SECTION = struct.Struct("<BHI")
_RECORD = struct.Struct("<II")
_BUNDLE = bytes([packing.FORMAT])


def encode_body(body: Body) -> bytes:
    """Return a record's body as a stored form: a kind, then its fields."""
    if type(body) is Delta:  # nearly all of them
        if body.logprobs:
            return packing.pack(10, body.pieces, body.ids, body.kind, body.index, body.logprobs)
        if body.kind is PartKind.TEXT and not body.index:
            return packing.pack(4, body.pieces, body.ids)
        return packing.pack(8, body.pieces, body.ids, body.kind, body.index)
    return packing.pack(*_WRITERS[type(body)](body))


def decode_body(data: bytes) -> Body:
    """Return a record's body. Raises Unavailable if another version wrote it."""
    values = packing.unpack(data)
    try:
        if values[0] == 4:
            return Delta(tuple(values[1]), tuple(values[2]))
        kind, *fields = values
        return _READERS[kind](*fields)
    except (LookupError, TypeError, ValueError) as error:
        raise packing.unreadable(f"not in a form that this version writes ({error!r})") from None


def section(response_id: str, bodies: Sequence[tuple[int, bytes]]) -> bytes:
    """Return one tape's part of a bundle; `bodies` are (last, encoded body)."""
    name = response_id.encode()
    if len(bodies) == 1:  # nearly all of them
        last, body = bodies[0]
        head = _SECTION.pack(len(name), 1, _RECORD.size + len(body))
        return b"".join((head, name, _RECORD.pack(last, len(body)), body))
    records = b"".join([part for last, body in bodies for part in (_RECORD.pack(last, len(body)), body)])
    return _SECTION.pack(len(name), len(bodies), len(records)) + name + records


def join(sections: Sequence[bytes]) -> bytes:
    """Return sections as one bundle."""
    return _BUNDLE + b"".join(sections)


def split(data: bytes, wanted: Callable[[str], bool] | None = None) -> Bundle:
    """Return a bundle's records of the tapes that are `wanted`. Raises Unavailable for a foreign format."""
    if data[:1] != _BUNDLE:
        raise packing.unreadable(f"in format {data[:1]!r}, this version reads {packing.FORMAT}; upgrade it")
    bundle: Bundle = []
    at = 1
    while at < len(data):
        name_length, count, length = _SECTION.unpack_from(data, at)
        at += _SECTION.size
        response_id = data[at : at + name_length].decode()
        at += name_length
        if wanted is None or wanted(response_id):
            bundle.append((response_id, _records(data, at, count)))
        at += length
    return bundle


def _records(data: bytes, at: int, count: int) -> list[Record]:
    records = []
    for _ in range(count):
        last, length = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        records.append(Record(last, decode_body(data[at : at + length])))
        at += length
    return records


_WRITERS: dict[type, Callable[[Any], tuple[object, ...]]] = {
    Accepted: lambda _: (0,),
    Queued: lambda _: (1,),
    Started: lambda b: (2, b.prompt, b.claim),
    ItemOpened: lambda b: (3, b.item_id, b.kind, b.index, b.call_id, b.name),
    ItemClosed: lambda b: (
        *(5, b.item_id, b.text, b.complete, b.kind, b.index, b.call_id, b.name),
        *((b.logprobs,) if b.logprobs else ()),
    ),
    Ended: lambda b: (6, b.outcome),
    Interrupted: lambda _: (7,),
    Prefilled: lambda b: (9, b.prompt, b.cached, b.ms),
}
_READERS: dict[int, Callable[..., Body]] = {
    0: Accepted,
    1: Queued,
    2: Started,
    3: lambda item_id, kind="text", *more: ItemOpened(item_id, PartKind(kind), *more),
    5: lambda item_id, text, complete, kind="text", index=0, call_id="", name="", logprobs=(): ItemClosed(
        item_id, text, complete, PartKind(kind), index, call_id, name, codec.logprobs_from(logprobs)
    ),
    6: lambda fields: Ended(codec.outcome_from(fields)),
    7: Interrupted,
    9: Prefilled,
    8: lambda pieces, ids, kind, index: Delta(tuple(pieces), tuple(ids), PartKind(kind), index),
    10: lambda pieces, ids, kind, index, logprobs: Delta(
        tuple(pieces), tuple(ids), PartKind(kind), index, tuple(map(codec.logprobs_from, logprobs))
    ),
}
