"""The descriptions of the API: for machines as JSON, for people as pages."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from functools import cache

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from chatserver.transports.static import HEADERS
from chatserver.wire.documents import asyncapi, guide, html, openapi

_HTML = "text/html; charset=utf-8"
_DOCUMENTS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "/openapi.json": ("application/json", lambda: orjson.dumps(openapi.document())),
    "/asyncapi.json": ("application/json", lambda: orjson.dumps(asyncapi.document())),
    "/docs": (_HTML, lambda: html.http(openapi.document())),
    "/docs/events": (_HTML, lambda: html.events(asyncapi.document())),
    "/docs/developers": (_HTML, guide.guide),
}


def routes() -> list[Route]:
    """Return the routes; they need no key, and hold nothing of anybody."""
    return [Route(path, _document, methods=["GET"]) for path in _DOCUMENTS]


async def _document(request: Request) -> Response:
    path = request.url.path
    # made once, beside the event loop: the first time takes some ten milliseconds
    plain, packed = await asyncio.to_thread(_made, path)
    headers = {**HEADERS, "vary": "accept-encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(
            packed, headers={**headers, "content-encoding": "gzip"}, media_type=_DOCUMENTS[path][0]
        )
    return Response(plain, headers=headers, media_type=_DOCUMENTS[path][0])


@cache
def _made(path: str) -> tuple[bytes, bytes]:
    plain = _DOCUMENTS[path][1]()
    return plain, gzip.compress(plain)
