"""What only the processes of this server may know."""

from __future__ import annotations

from typing import Protocol


class Secrets(Protocol):
    """Random bytes, made once for each store and the same for every process on it."""

    async def cache_salt(self) -> bytes:
        """Return the 32 bytes that tenants' KV-cache salts are made with; makes them first. Raises Unavailable."""
        ...
