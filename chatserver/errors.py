"""Errors: one tree, drawn here.

    ChatServerError
    ├── BadRequest               400  the client must change the request; names the field
    │   └── ContextTooLong       400  the prompt does not fit; gives the counts
    ├── Unauthenticated          401
    ├── QuotaExceeded            402  the key has spent what it may this month
    ├── Forbidden                403
    ├── NotFound                 404  unknown or foreign: the same answer for both
    │   └── ModelNotFound        404  lists what is served
    ├── Conflict                 409  the conversation is busy or has moved on
    ├── TooLarge                 413
    ├── Overloaded               429  a queue is full; comes with a time to retry
    │   └── RateLimited          429  a limit of the API key; with a time to retry, if waiting helps
    ├── Unavailable              503  no engine or no store; comes with a time to retry
    ├── EngineFailed             500  the engine lost or refused the answer
    └── StartupError             exit code; one line for the operator, never on the wire

`code` is the machine-readable word, `status` the HTTP status, `close_code` what a WebSocket is
closed with if the error ends the connection (3000–3499 and 4000–4499: may come back; 4500–4999: must not).
"""

from __future__ import annotations


class ChatServerError(Exception):
    """The root. `message` says what was expected and what was got; `param` names the field."""

    status = 500
    kind = "server_error"
    code = "internal_error"
    close_code = 4400

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or type(self).code
        self.retry_after = retry_after
        """Seconds after which the same request may succeed, or None if it never will."""

    @property
    def body(self) -> dict[str, str | None]:
        """The OpenAI error object: all four keys, always."""
        return {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}


class BadRequest(ChatServerError):
    """The request is malformed; it names the field and what was expected."""

    status, kind, code, close_code = 400, "invalid_request_error", "invalid_value", 4500


class ContextTooLong(BadRequest):
    """The prompt and the reserve do not fit the window. `needed`: tokens that the prompt has."""

    code = "context_length_exceeded"
    needed = 0


class Unauthenticated(ChatServerError):
    """No valid API key."""

    status, kind, code, close_code = 401, "authentication_error", "invalid_api_key", 4501


class QuotaExceeded(ChatServerError):
    """The key's spending has reached its bound."""

    status, kind, code, close_code = 402, "insufficient_quota", "insufficient_quota", 4502


class Forbidden(ChatServerError):
    """The key or the origin may not do this."""

    status, kind, code, close_code = 403, "permission_error", "forbidden", 4503


class NotFound(ChatServerError):
    """The thing does not exist, or belongs to another tenant."""

    status, kind, code, close_code = 404, "invalid_request_error", "not_found", 4504


class ModelNotFound(NotFound):
    """The model is not served here."""

    code = "model_not_found"


class Conflict(ChatServerError):
    """The thing is in a state that does not allow this now."""

    status, kind, code, close_code = 409, "invalid_request_error", "conflict", 4409


class TooLarge(BadRequest):
    """The body or the frame is over its bound."""

    status, code, close_code = 413, "request_too_large", 4513


class Overloaded(ChatServerError):
    """A queue is full."""

    status, kind, code, close_code = 429, "rate_limit_error", "queue_full", 4429


class RateLimited(Overloaded):
    """The key has used up a limit for now."""

    code = "rate_limit_exceeded"


class Unavailable(ChatServerError):
    """Something behind the server is not there now."""

    status, kind, code, close_code = 503, "server_error", "unavailable", 4403


class EngineFailed(ChatServerError):
    """The engine could not produce the answer."""

    code = "engine_failed"


class StartupError(ChatServerError):
    """The program cannot start or go on; one line that says what to do. `exit_code` for the shell."""

    code = "startup_failed"

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
