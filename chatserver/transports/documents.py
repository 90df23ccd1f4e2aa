"""The machine-readable descriptions of the API."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from chatserver.transports.door import json_response
from chatserver.wire.documents import asyncapi, openapi


def routes() -> list[Route]:
    """Return the routes; they need no key."""

    async def http(request: Request) -> Response:
        return json_response(openapi.document())

    async def websocket(request: Request) -> Response:
        return json_response(asyncapi.document())

    return [
        Route("/openapi.json", http, methods=["GET"]),
        Route("/asyncapi.json", websocket, methods=["GET"]),
    ]
