"""Which other sites' pages may call from a browser (CORS): an allow-list, empty by default.

Keys travel in a header, never in a cookie, so credentials are not allowed to anybody.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

METHODS = ("GET", "POST", "DELETE")
REQUEST_HEADERS = (
    "authorization",
    "content-type",
    "idempotency-key",
    "last-event-id",
    "x-request-id",
    "x-conversation-id",
    # what OpenAI's JavaScript client adds
    *(f"x-stainless-{name}" for name in ("arch", "async", "helper-method", "lang", "os", "package-version")),
    *(f"x-stainless-{name}" for name in ("retry-count", "runtime", "runtime-version", "timeout")),
    "openai-organization",
    "openai-project",
)
ANSWER_HEADERS = (
    "x-request-id",
    "x-conversation-id",
    "retry-after",
    "retry-after-ms",
    *(
        f"x-ratelimit-{what}-{of}"
        for what in ("limit", "remaining", "reset")
        for of in ("requests", "tokens")
    ),
)


def cross_origin(origins: Collection[str]) -> list[Middleware]:
    """Return what answers browsers that ask for the pages of these origins; nothing if there are none."""
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=METHODS,
            allow_headers=REQUEST_HEADERS,
            expose_headers=ANSWER_HEADERS,
            max_age=600,
        )
    ]
