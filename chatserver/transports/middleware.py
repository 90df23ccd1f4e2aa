"""What happens to every HTTP request: an id, a bound on its body, and errors in OpenAI's form."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatserver.errors import BadRequest, ChatServerError, NotFound, TooLarge
from chatserver.wire import errors

log = logging.getLogger(__name__)

BODY_TIMEOUT = 30.0
"""Seconds in which a whole request body must arrive."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


class Envelope:
    """Gives every request an id, and turns what the endpoint raises into an error body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope))
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers.setdefault("x-content-type-options", "nosniff")
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except TimeoutError:
            if not started:
                raise
            # The client has not read for so long that its answer was given up; it may come back and resume.
            log.info("%s %s: the client stopped reading", request_id, scope["path"])
        except Exception:
            log.exception("%s %s %s failed", request_id, scope["method"], scope["path"])
            if started:
                raise
            error = ChatServerError(f"The server failed; its log has the details under {request_id}.")
            await error_response(error)(scope, receive, send_with_headers)


class BodyLimit:
    """Refuses a body that is too large before it is read, and one that arrives too slowly."""

    def __init__(self, app: ASGIApp, *, limit: int, timeout: float = BODY_TIMEOUT) -> None:
        self._app = app
        self._limit = limit
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdigit() and int(announced[:20]) > self._limit:
            await error_response(self._too_large())(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        received, complete = 0, False

        async def bounded_receive() -> Message:
            nonlocal received, complete
            if complete:
                return await receive()  # only a disconnect can follow, whenever it likes
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise BadRequest(
                    f"The body: expected all of it within {self._timeout:g} s", code="body_timeout"
                ) from None
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > self._limit:
                raise self._too_large()
            return message

        await self._app(scope, bounded_receive, send)

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The body: expected at most {self._limit} bytes, got more")


def error_response(error: ChatServerError) -> Response:
    """Return an error as an HTTP response."""
    headers = errors.headers(error)
    if isinstance(error, TooLarge) or error.code == "body_timeout":
        headers["connection"] = "close"  # the rest of the body is never read
    return Response(errors.body(error), error.status, headers, media_type="application/json")


async def on_error(request: Request, error: Exception) -> Response:
    """Answer a ChatServerError."""
    assert isinstance(error, ChatServerError)
    return error_response(error)


async def on_http_error(request: Request, error: Exception) -> Response:
    """Answer Starlette's own refusals: unknown route, unknown method, broken request."""
    assert isinstance(error, HTTPException)
    place = f"{request.method} {request.url.path[:200]}"
    if error.status_code == NotFound.status:
        problem: ChatServerError = NotFound(f"Unknown request URL: {place}.", code="unknown_url")
    elif error.status_code == 405:
        problem = BadRequest(f"Not allowed here: {place}.", code="method_not_allowed")
    else:
        problem = BadRequest(f"{place}: {error.detail}")
    response = error_response(problem)
    response.status_code = error.status_code
    response.headers.update(error.headers or {})
    return response


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
