"""Errors as clients read them: an HTTP body, a flat SSE event, a nested WebSocket event."""

from __future__ import annotations

import math
from collections.abc import Mapping

import orjson

from chatserver.domain.response import Failure
from chatserver.errors import (
    BadRequest,
    ChatServerError,
    Conflict,
    ContextTooLong,
    EngineFailed,
    Forbidden,
    NotFound,
    Overloaded,
    QuotaExceeded,
    Unauthenticated,
    Unavailable,
)

UNKNOWN_WAIT = 5.0
"""Seconds after which to ask again where nobody can tell when what is away will be back."""
_BY_STATUS: dict[int, type[ChatServerError]] = {
    400: BadRequest,
    401: Unauthenticated,
    402: QuotaExceeded,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    429: Overloaded,
    503: Unavailable,
}


def body(error: ChatServerError) -> bytes:
    """Return `{"error": {message, type, param, code}}`."""
    return orjson.dumps({"error": error.body})


def headers(error: ChatServerError) -> dict[str, str]:
    """Return the headers that tell a client when the same request may succeed."""
    found = {}
    wait = error.retry_after
    if wait is None and isinstance(error, Unavailable):
        wait = UNKNOWN_WAIT
    if wait is not None:
        found["retry-after"] = str(math.ceil(wait))
        found["retry-after-ms"] = str(round(wait * 1000))
    elif isinstance(error, Overloaded):
        found["x-should-retry"] = "false"  # what OpenAI's clients ask before they retry a 429
    if error.status == Unauthenticated.status:
        found["www-authenticate"] = "Bearer"
    return found


def flat_event(error: ChatServerError, sequence_number: int) -> bytes:
    """Return the SSE error event of a Responses stream: code and message at the top level."""
    return orjson.dumps(
        {
            "type": "error",
            "code": error.code,
            "message": error.message,
            "param": error.param,
            "sequence_number": sequence_number,
        }
    )


def nested_event(
    error: ChatServerError, stream_id: str | None = None, rates: Mapping[str, str] | None = None
) -> bytes:
    """Return the WebSocket error event: status at the top level, the error object inside.

    `rates`: what an HTTP answer's headers would say about the key's limits.
    """
    event: dict[str, object] = {"type": "error", "status": error.status, "error": error.body}
    told = headers(error) | dict(rates or {})
    if told and not isinstance(error, Unauthenticated):
        event["error"] = {**error.body, "headers": told}
    if stream_id is not None:
        event["stream_id"] = stream_id
    return orjson.dumps(event)


def from_failure(failure: Failure) -> ChatServerError:
    """Return the error that a failed response is, for a client that has not been answered yet."""
    kind = (
        ContextTooLong
        if failure.code == ContextTooLong.code
        else _BY_STATUS.get(failure.status, EngineFailed)
    )
    retry_after = 1.0 if failure.status in (Overloaded.status, Unavailable.status) else None
    return kind(failure.message, param=failure.param, code=failure.code, retry_after=retry_after)
