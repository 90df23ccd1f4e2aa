"""Stored forms: JSON arrays and hashes that begin with their version, and packed token ids.

Reading another version is refused, so an older process never misreads what a newer one wrote. Token ids are
packed as little-endian uint32.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import orjson

from chatserver.errors import BadRequest, Unavailable

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


def hash_fields(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return what HGETALL answered as a dictionary. Raises Unavailable if another version wrote it."""
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    if fields.get(b"v") != b"%d" % FORMAT:
        raise unreadable(
            f"in format {fields.get(b'v', b'?').decode()}, this version reads {FORMAT}; upgrade it"
        )
    return fields


def text(value: bytes | None) -> str | None:
    """Return a field's text; None if it is not there, or empty."""
    return value.decode() if value else None


def read(build: Callable[[dict[str, Any]], T], fields: dict[str, Any]) -> T:
    """Return a value from its JSON form. Raises Unavailable if it has other fields than this version writes."""
    try:
        return build(fields)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise unreadable(f"not in a form that this version writes ({error!r})") from None
