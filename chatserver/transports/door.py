"""What every endpoint needs, and what every request carries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import blake2b

import orjson
from starlette.requests import Request
from starlette.responses import Response

from chatserver.errors import BadRequest
from chatserver.ports.accounts import Accounts
from chatserver.ports.registry import Registry
from chatserver.service.web.admission import Admission, Ticket
from chatserver.service.web.chat import Chat
from chatserver.service.web.pulse import Pulse
from chatserver.settings import Settings
from chatserver.transports import gate
from chatserver.transports.auth import Keys
from chatserver.wire.lists import parse_query

Endpoint = Callable[[Request], Awaitable[Response]]
MAX_IDEMPOTENCY_KEY = 255


@dataclass(frozen=True, slots=True)
class Door:
    """What endpoints are made with."""

    chat: Chat
    registry: Registry
    keys: Keys
    settings: Settings
    admission: Admission
    accounts: Accounts
    pulse: Pulse

    def ticket(self, request: Request) -> Ticket:
        """Return the ticket that the gate gave to a request: it pays for what the request asks for."""
        return gate.ticket_of(request.scope)

    def query(self, request: Request, *, logprobs: bool = False) -> dict[str, str]:
        """Return the query without its `include`, which is checked. Raises BadRequest.

        `logprobs`: whether log-probabilities may be asked for, as what is shown has them.
        """
        return parse_query(request.query_params.multi_items(), logprobs=logprobs)

    def tenant(self, request: Request) -> str:
        """Return whom the gate let in."""
        return self.ticket(request).caller.tenant


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
