"""The KV-cache salt of a tenant: what keeps one tenant's prompts from ever meeting another's cached prefixes."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256

LENGTH = 32
"""Hex digits of a salt: 128 bits."""


def salts(secret: bytes) -> Callable[[str], str]:
    """Return tenant → salt. Clients cannot choose a salt, nor compute another tenant's without the secret."""

    @lru_cache(maxsize=1024)
    def salt(tenant: str) -> str:
        return hmac.digest(secret, f"kv {tenant}".encode(), sha256).hex()[:LENGTH]

    return salt
