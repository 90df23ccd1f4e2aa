"""GET /v1/usage: what a tenant's keys used, and what it cost."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from chatserver.transports.door import Door, json_response
from chatserver.wire import usage as wire


def routes(door: Door) -> list[Route]:
    """Return the route."""

    async def usage(request: Request) -> Response:
        ask = wire.parse(request.query_params, today=datetime.now(UTC).date())
        await door.accounts.settle()  # what has ended by now is counted
        rows = await door.accounts.used(door.tenant(request), ask.first, ask.last)
        return json_response(wire.usage_page(ask, rows))

    return [Route("/v1/usage", usage, methods=["GET"])]
