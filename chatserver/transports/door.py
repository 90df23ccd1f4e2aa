"""What every endpoint needs, and what every request carries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import blake2b

import orjson
from starlette.requests import Request
from starlette.responses import Response

from chatserver.errors import BadRequest
from chatserver.ports.registry import Registry
from chatserver.service.chat import Chat
from chatserver.settings import Settings
from chatserver.transports.auth import Keys

Endpoint = Callable[[Request], Awaitable[Response]]
MAX_IDEMPOTENCY_KEY = 255


@dataclass(frozen=True, slots=True)
class Door:
    """What endpoints are made with."""

    chat: Chat
    registry: Registry
    keys: Keys
    settings: Settings

    def tenant(self, request: Request) -> str:
        """Return who asks. Raises Unauthenticated, Forbidden."""
        return self.keys.tenant(request.headers)


def json_response(value: object, status: int = 200) -> Response:
    """Return a JSON answer."""
    return Response(orjson.dumps(value), status, media_type="application/json")


def idempotency_key(value: str | None, name: str = "Idempotency-Key") -> str | None:
    """Check an idempotency key. Raises BadRequest."""
    if value is None:
        return None
    if not 0 < len(value) <= MAX_IDEMPOTENCY_KEY or not value.isprintable():
        raise BadRequest(f"{name}: expected 1 to {MAX_IDEMPOTENCY_KEY} printable characters", param=name)
    return value


def fingerprint(kind: str, body: bytes) -> str:
    """Return what two requests with the same idempotency key must have in common."""
    return blake2b(kind.encode() + b"\n" + body, digest_size=16).hexdigest()
