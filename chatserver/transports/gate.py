"""The gate before a route: key, scope, and one request of the key's limits.

Every route has one unless it is public on purpose: see `http.routes`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from chatserver.domain.access import Scope as Permission
from chatserver.service.web.admission import Ticket
from chatserver.transports.lasting import headers
from chatserver.wire.limits import rate_headers

if TYPE_CHECKING:
    from chatserver.transports.door import Door

_TICKET = "chatserver.ticket"
_GENERATE = (
    "/chat/completions",
    "/v1/chat/completions",
    "/beta/chat/completions",
    "/v1/responses",
    "/v1/responses/input_tokens",
    "/v1/responses/{response_id}/cancel",
)
_FOLLOW = "/v1/responses/{response_id}"


class Gate:
    """Serves a route to those who may use it. Raises what the client is told."""

    def __init__(self, endpoint: Callable[[Request], Awaitable[Response]], door: Door, path: str) -> None:
        self._endpoint = endpoint
        self._door = door
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        caller = await self._door.keys.caller(headers(scope))
        allowed = permissions(scope["method"], self._path)
        if allowed:
            caller.check(*allowed)
        ticket = scope[_TICKET] = self._door.admission.ticket(caller)
        await ticket.enter()
        # not through the route's own layers: what an endpoint raises is answered by the application's
        answer = await self._endpoint(Request(scope, receive, send))
        await answer(scope, receive, send)


def guarded(route: Route, door: Door) -> Route:
    """Return a route behind a gate. Modifies it."""
    assert inspect.iscoroutinefunction(route.endpoint), route.path
    route.app = Gate(route.endpoint, door, route.path)
    return route


def permissions(method: str, path: str) -> tuple[Permission, ...]:
    """Return the scopes of which a key needs one for a route; none for the list of models."""
    if path.removeprefix("/v1").removeprefix("/beta").startswith("/models"):
        return ()
    if path in ("/v1/usage", "/metrics"):
        return (Permission.USAGE,)
    if method in ("GET", "HEAD"):
        return (Permission.READ, Permission.GENERATE) if path == _FOLLOW else (Permission.READ,)
    return (Permission.GENERATE,) if path in _GENERATE else (Permission.WRITE,)


def ticket_of(scope: MutableMapping[str, Any]) -> Ticket:
    """Return the ticket of a request that came through a gate."""
    return scope[_TICKET]


def headers_of(scope: MutableMapping[str, Any]) -> dict[str, str]:
    """Return what the answer to a request says about its key's limits; nothing without any."""
    ticket = scope.get(_TICKET)
    return rate_headers(ticket.verdict) if ticket is not None and ticket.verdict else {}
