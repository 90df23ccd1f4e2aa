"""API keys: who may do what, and how much of it.

    sk-0a3f…e1-Zm9v…        the key as its owner has it: «sk», the id, the secret
    key_0a3f…e1             its id: shard (2 hex) and 14 hex of entropy; no secret, and in every list

Only an HMAC of the secret is kept. The secret has 256 bits of entropy, so nothing slower than one hash is needed.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from enum import StrEnum

from chatserver.domain.ids import SHARDS, shard_for

SECRET_BYTES = 32
ID_BYTES = 7
_ID = re.compile(r"key_([0-9a-f]{16})")
_TOKEN = re.compile(r"sk-([0-9a-f]{16})-([A-Za-z0-9_-]{43})")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
MAX_PER_MINUTE = 100_000_000
"""Bound on rates, so that the store's arithmetic stays exact in 53 bits."""
MAX_CONCURRENT = 1000


class Scope(StrEnum):
    """What a key may do. Every key may list the models."""

    GENERATE = "generate"
    """Ask for answers, follow and stop them."""
    READ = "read"
    """Read conversations, items and responses."""
    WRITE = "write"
    """Make, change and delete conversations, items and responses."""
    USAGE = "usage"
    """Read the tenant's usage and costs, and the engines' figures."""


ALL_SCOPES = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class Limits:
    """None: unlimited. `spend` in picos a calendar month (UTC)."""

    requests: int | None = None
    tokens: int | None = None
    concurrent: int | None = None
    spend: int | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored key. Times in Unix seconds; `expires_at` and `revoked_at` 0: never."""

    id: str
    tenant: str
    digest: str
    name: str = ""
    scopes: frozenset[Scope] = ALL_SCOPES
    limits: Limits = field(default_factory=Limits)
    created_at: int = 0
    expires_at: int = 0
    revoked_at: int = 0


def new_token(tenant: str, id_entropy: bytes, secret_entropy: bytes) -> tuple[str, str, str]:
    """Return (key id, the key as its owner gets it, the digest to keep) from ID_BYTES and SECRET_BYTES of entropy."""
    if len(id_entropy) != ID_BYTES or len(secret_entropy) != SECRET_BYTES:
        raise ValueError(f"expected {ID_BYTES} and {SECRET_BYTES} bytes of entropy")
    public = f"{shard_for(tenant):02x}{id_entropy.hex()}"
    secret = urlsafe_b64encode(secret_entropy).rstrip(b"=").decode()
    key_id = f"key_{public}"
    return key_id, f"sk-{public}-{secret}", digest(key_id, secret)


def parse_token(token: str) -> tuple[str, str] | None:
    """Return (key id, secret) of what looks like one of our keys, or None."""
    match = _TOKEN.fullmatch(token)
    return (f"key_{match[1]}", match[2]) if match else None


def digest(key_id: str, secret: str) -> str:
    """Return what is kept of a secret: HMAC-SHA256 under the key's id, so that equal secrets look different."""
    return hmac.digest(key_id.encode(), secret.encode(), "sha256").hex()


def matches(key: ApiKey, secret: str) -> bool:
    """Compare a secret with a stored key, in a time that says nothing."""
    return hmac.compare_digest(key.digest, digest(key.id, secret))


def key_shard(key_id: str) -> int | None:
    """Return the shard of a stored key's id, or None: no stored key can have it."""
    match = _ID.fullmatch(key_id)
    shard = int(match[1][:2], 16) if match else SHARDS
    return shard if shard < SHARDS else None


def is_tenant(name: str) -> bool:
    """Whether a tenant may be called so: 1 to 64 letters, digits, `_`, `.` and `-`."""
    return _TENANT.fullmatch(name) is not None
