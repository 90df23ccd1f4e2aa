"""The statuses that an operation may answer with, what each brings, and its headers. There are no others."""

from __future__ import annotations

from chatserver.errors import Unauthenticated
from chatserver.wire.documents.pieces import TEXT, WHOLE, Schema, ref

ANYWHERE = (400, 408, 413, 431, 500, 503)
"""What a connection, a body or a defect of ours may lead to, whatever is asked for."""
GUARDED = (401, 403, 429)
"""What the gate says: the key, its scopes (without keys: the host and the origin), its requests a minute."""
_MEANINGS = {
    400: "The request must change: `param` names the field, `message` says what was expected and what came",
    401: "No valid key",
    402: "The key has spent what it may this month",
    403: "The key, the host or the origin may not do this",
    404: "Unknown, or another tenant's",
    408: "The line and the headers took too long",
    409: "Not in this state: a turn runs, the conversation has moved on, an idempotency key was used",
    413: "The body is too large",
    429: "A limit of the key, or a queue, is full",
    431: "The line and the headers are too large",
    500: "The engine or the server failed",
    503: "The store, the engine or a place for the connection is not there now",
}
_REQUEST_ID: Schema = {
    "x-request-id": {
        "required": True,
        "description": "the one that was sent, if it can be one",
        "schema": {**TEXT, "pattern": "^[A-Za-z0-9_.:-]{1,128}$"},
    }
}
_WAIT: Schema = {
    "retry-after": {"description": "seconds, rounded up", "schema": {**WHOLE, "minimum": 0}},
    "retry-after-ms": {"schema": {**WHOLE, "minimum": 0}},
}


def shared() -> dict[str, Schema]:
    """Return the errors by status, for the document's components."""
    return {str(status): _error(status, meaning) for status, meaning in _MEANINGS.items()}


def answers(success: Schema, *, guarded: bool, also: tuple[int, ...] = (), events: bool = False) -> Schema:
    """Return all answers of an operation. `success`: the content of a 200; `also`: errors of its own.

    `events`: whether what is followed may be at its end already.
    """
    headers = _REQUEST_ID | (_rates() if guarded else {})
    found: Schema = {"200": {"description": "OK", "headers": headers, "content": success}}
    if events:
        found["204"] = {"description": "Nothing more comes: do not come back", "headers": headers}
    errors = {*ANYWHERE, *(GUARDED if guarded else ()), *also}
    return found | {str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(errors)}


def unready(readiness: Schema) -> Schema:
    """Return the 503 of /readyz, which says what is missing; of a connection too many it is an error."""
    content = {"application/json": {"schema": {"oneOf": [readiness, ref("Error")]}}}
    return {**_error(503, "Not ready: `reason` says why"), "content": content}


def _error(status: int, meaning: str) -> Schema:
    headers = dict(_REQUEST_ID)
    if status == Unauthenticated.status:
        headers["www-authenticate"] = {"required": True, "schema": {"const": "Bearer"}}
    if status == 429:  # without a time: waiting is of no use
        headers |= _WAIT | {"x-should-retry": {"schema": {"const": "false"}}}
    if status == 503:
        headers |= {name: {**header, "required": True} for name, header in _WAIT.items()}
    if status not in (408, 431):
        headers |= _rates()
    return {
        "description": meaning,
        "headers": headers,
        "content": {"application/json": {"schema": ref("Error")}},
    }


def _rates() -> dict[str, Schema]:
    """Return the headers about a key's limits; those of a limit that it does not have are not sent."""
    kinds: dict[str, Schema] = {
        "limit": WHOLE,
        "remaining": WHOLE,
        "reset": {**TEXT, "pattern": r"^(\d+ms|\d+(\.\d+)?s|\d+m\d+(\.\d+)?s)$"},
    }
    return {
        f"x-ratelimit-{what}-{of}": {"schema": schema}
        for of in ("requests", "tokens")
        for what, schema in kinds.items()
    }
