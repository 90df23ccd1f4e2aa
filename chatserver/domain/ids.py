"""Identifiers that say where a thing lives.

    msg_0a 1892f3c04d51e7 9c…   kind _ shard (2 hex) + when it was made (14 hex) + what nobody can guess (16 hex)

All keys of one conversation, its responses, tapes and jobs share one shard, and so one hash slot of
a Redis Cluster: an id alone is enough to find the keys, and every step on them can be atomic.

Ids of one kind sort by when they were made, to 256 ns: versions of an answer that were begun within a second
stand in that order.
"""

from __future__ import annotations

import re
from hashlib import blake2b

SHARDS = 16
"""Number of shards; fixed, because ids carry them. One job queue each."""

ENTROPY_BYTES = 15
TIME_BYTES = 7
KINDS = ("conv", "resp", "chatcmpl", "msg", "cmp", "rs", "fc", "eng", "web")
_PATTERN = re.compile(r"(?P<kind>[a-z]+)_(?P<shard>[0-9a-f]{2})[0-9a-f]{30}")
_PART = re.compile(r"(?:msg|rs|fc)_(?P<rest>[0-9a-f]{32})(?:_[0-9]{1,4})?")
_PART_KINDS = {"text": "msg", "reasoning": "rs", "call": "fc"}


def new_id(kind: str, shard: int, entropy: bytes) -> str:
    """Make an id of `kind` in `shard` from ENTROPY_BYTES random bytes."""
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {KINDS}, got {kind!r}")
    if not 0 <= shard < SHARDS or len(entropy) != ENTROPY_BYTES:
        raise ValueError(
            f"expected shard < {SHARDS} and {ENTROPY_BYTES} bytes, got {shard} and {len(entropy)}"
        )
    return f"{kind}_{shard:02x}{entropy.hex()}"


def timed(now_ns: int, guess: bytes) -> bytes:
    """Return the bytes of an id made at `now_ns`, Unix nanoseconds. `guess`: random, ENTROPY_BYTES - TIME_BYTES."""
    return (now_ns >> 8).to_bytes(TIME_BYTES) + guess


def time_of(identifier: str) -> bytes:
    """Return the part of a well-formed id that says when it was made."""
    return bytes.fromhex(identifier.partition("_")[2][2 : 2 + 2 * TIME_BYTES])


def shard_of(identifier: str, *kinds: str) -> int | None:
    """Return the shard of a well-formed id of one of `kinds`, or None: it cannot exist here."""
    match = _PATTERN.fullmatch(identifier)
    if match is None or (kinds and match["kind"] not in kinds):
        return None
    shard = int(match["shard"], 16)
    return shard if shard < SHARDS else None


def shard_for(key: str) -> int:
    """Return the shard that a key (tenant and idempotency key, say) always falls in."""
    return blake2b(key.encode(), digest_size=2).digest()[0] % SHARDS


def part_id(answer: str, kind: str, index: int) -> str:
    """Return what clients know a part of an answer by. `kind`: text, reasoning or call; `index`: its place, from 0.

    The text of an answer without anything but reasoning or one call before it has the answer's own id.
    """
    if kind == "text" and index <= 1:
        return answer
    suffix = f"_{index}" if index else ""
    return f"{_PART_KINDS[kind]}_{answer.partition('_')[2]}{suffix}"


def answer_of(identifier: str) -> str:
    """Return the id of the item that a part belongs to; any other id as it is."""
    match = _PART.fullmatch(identifier)
    return f"msg_{match['rest']}" if match else identifier


def summary_id(covers: str) -> str:
    """Return the id of the summary whose last covered item is `covers`."""
    entropy = blake2b(covers.encode(), digest_size=ENTROPY_BYTES, person=b"summary").digest()
    return new_id("cmp", shard_of(covers) or 0, entropy)
