"""The HTTP API as an OpenAPI document. A test compares its paths with the routes, and its fields with the parsers."""

from __future__ import annotations

from functools import cache

from chatserver.wire.documents.answers import shared
from chatserver.wire.documents.objects import schemas
from chatserver.wire.documents.paths import paths
from chatserver.wire.documents.pieces import Schema


@cache
def document() -> Schema:
    """Return the document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "chatserver",
            "version": "1",
            "description": (
                "OpenAI's Responses, Conversations and Chat Completions. Fields not listed here are refused with 400, "
                "or accepted only with the value that changes nothing. What is streamed is in `/asyncapi.json`."
            ),
        },
        "paths": paths(),
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas(),
            "responses": shared(),
        },
        "security": [{}, {"key": []}],
    }
