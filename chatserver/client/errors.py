"""What can go wrong for a client: one tree, drawn here.

ClientError
├── Refused          the server will not do this; the same request is refused again
│   ├── KeyRefused   401 or 403: come back with another key
│   └── Gone         404: there is no such response or conversation, or not any more
├── Unreachable      the server was away, or busy, for longer than `Options.patience`
├── AnswerFailed     the answer ended with an error: the engine lost or refused it
└── ProtocolError    what came is not what this server says
"""

from __future__ import annotations

from typing import Any


class ClientError(Exception):
    """The root; the message is one line."""


class Refused(ClientError):
    """The server will not do this. `param` names the field that is wrong, if one is."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param


class KeyRefused(Refused):
    """The key is unknown, expired or revoked, or may not do this: no retry mends that."""


class Gone(Refused):
    """The response or conversation does not exist, or belongs to another tenant."""


class Unreachable(ClientError):
    """The server was away, or said that it is busy, for longer than the client waits."""


class AnswerFailed(ClientError):
    """The answer ended with an error. `code` is the server's word for it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ProtocolError(ClientError):
    """The other side does not speak this API: is the address right?"""


def refusal(status: int, body: Any) -> Refused:
    """Return the error for a 4xx answer with that JSON body (any value)."""
    inner = body.get("error") if isinstance(body, dict) else None
    error: dict[str, Any] = inner if isinstance(inner, dict) else {}
    kind = {401: KeyRefused, 403: KeyRefused, 404: Gone}.get(status, Refused)
    message = str(error.get("message") or f"the server answered {status}")
    return kind(status, str(error.get("code") or "unknown"), message, error.get("param"))
