"""Where API keys are kept, and what operators did with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from chatserver.domain.access import ApiKey, Limits

MAX_KEYS = 10_000
"""Bound on keys, revoked ones included."""
MAX_LOG = 10_000
"""Bound on the log of what operators did: the oldest entries go first."""


@dataclass(frozen=True, slots=True)
class Deed:
    """What an operator did. `at`: Unix seconds; `actor`: the user of the operating system; `what`: a word."""

    at: float
    actor: str
    what: str
    key: str
    tenant: str
    detail: str = ""


class Access(Protocol):
    """Stored keys. No method takes or returns a secret."""

    async def create(self, key: ApiKey, deed: Deed) -> None:
        """Store a key and log the deed. Raises Conflict (MAX_KEYS are there, or the id is)."""
        ...

    async def get(self, key_id: str) -> ApiKey | None:
        """Return it, or None."""
        ...

    async def all(self) -> list[ApiKey]:
        """Return all keys, revoked and expired ones too, oldest first."""
        ...

    async def any(self) -> bool:
        """Whether a key was ever made here: then every request needs one."""
        ...

    async def limit(self, key_id: str, limits: Limits, deed: Deed) -> ApiKey:
        """Give a key other limits, from its next request on, in all processes; log the deed. Raises NotFound."""
        ...

    async def revoke(self, key_id: str, deed: Deed) -> ApiKey:
        """Make a key invalid at once, in all processes, and log the deed; idempotent. Raises NotFound."""
        ...

    async def log(self, limit: int) -> list[Deed]:
        """Return the newest `limit` deeds, newest first."""
        ...
