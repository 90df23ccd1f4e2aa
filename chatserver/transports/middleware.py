"""What happens to every HTTP request: an id, a bound on its body, and errors in OpenAI's form."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatserver.errors import BadRequest, ChatServerError, NotFound, TooLarge
from chatserver.service.web.follower import RESTARTING
from chatserver.transports.gate import headers_of
from chatserver.transports.lasting import CONNECTION, REQUEST_ID, Connection, header
from chatserver.wire import errors

log = logging.getLogger(__name__)

BODY_TIMEOUT = 30.0
"""Seconds in which a whole request body must arrive."""
DISCARD = 8
"""Bodies up to this many times the limit are read to their end before they are refused."""
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
        request_id = scope[REQUEST_ID] = _request_id(scope)
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _complete(message, {"x-request-id": request_id, **headers_of(scope)})
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except ChatServerError as error:
            if started:
                raise
            await error_response(error)(scope, receive, send_with_headers)
        except HTTPException as error:
            if started:
                raise
            await http_error_response(error, scope)(scope, receive, send_with_headers)
        except ClientDisconnect:
            log.info("%s %s: the client left before its body had come", request_id, scope["path"])
        except Exception as failure:
            if started and isinstance(failure, TimeoutError):
                # It has not read for so long that its answer was given up; it may come back and resume.
                log.info("%s %s: the client stopped reading", request_id, scope["path"])
                return
            log.exception("%s %s %s failed", request_id, scope["method"], scope["path"])
            if started:
                raise
            error = ChatServerError(f"The server failed; its log has the details under {request_id}.")
            await error_response(error)(scope, receive, send_with_headers)


def _complete(start: Message, headers: Mapping[str, str]) -> None:
    """Add headers to the start of an answer; what it has itself stands. Starlette's class for them takes longer."""
    given = start.get("headers", ())
    names = {name for name, _ in given}
    added = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    added.append((b"x-content-type-options", b"nosniff"))
    start["headers"] = [*given, *(pair for pair in added if pair[0] not in names)]


class BodyLimit:
    """Refuses a body that is too large, without keeping it, and one that arrives too slowly.

    A connection that is closed with unread bytes is reset, and its client may never see the answer. So what
    is only somewhat too large is first read and thrown away.
    """

    def __init__(self, app: ASGIApp, *, limit: int, timeout: float = BODY_TIMEOUT) -> None:
        self._app = app
        self._limit = limit
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(receive, self._limit, self._timeout, scope.get(CONNECTION))
        announced = header(scope, b"content-length") or ""
        if announced.isdigit() and int(announced[:20]) > self._limit:
            if header(scope, b"expect") is None and int(announced[:20]) <= self._limit * DISCARD:
                await body.discard()
            await error_response(body.too_large())(scope, receive, send)
            return
        await self._app(scope, body.receive, send)


class _Body:
    """The body of one request as it arrives."""

    def __init__(self, receive: Receive, limit: int, timeout: float, connection: Connection | None) -> None:
        self._receive = receive
        self._connection = connection
        self._limit = limit
        self._timeout = timeout
        self._deadline = asyncio.get_running_loop().time() + timeout
        self._received = 0
        self._complete = False

    async def receive(self) -> Message:
        """Return the next part. Raises TooLarge, BadRequest (too slow)."""
        if self._complete:
            return await self._receive()  # only a disconnect can follow, whenever it likes
        message = await self._next()
        if self._received > self._limit:
            await self.discard()
            raise self.too_large()
        return message

    async def discard(self) -> None:
        """Read the rest and throw it away, up to a bound."""
        while not self._complete and self._received <= self._limit * DISCARD:
            await self._next()

    def too_large(self) -> TooLarge:
        """Return the refusal."""
        return TooLarge(f"The body: expected at most {self._limit} bytes, got more")

    async def _next(self) -> Message:
        if self._connection is not None and self._connection.heard:
            message = await self._receive()  # it waits for nothing: the rule for what fits into a packet
        else:
            message = await self._in_time()
        self._received += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        return message

    async def _in_time(self) -> Message:
        try:
            async with asyncio.timeout_at(self._deadline):
                return await self._receive()
        except TimeoutError:
            raise BadRequest(
                f"The body: expected all of it within {self._timeout:g} s", code="body_timeout"
            ) from None


def error_response(error: ChatServerError) -> Response:
    """Return an error as an HTTP response."""
    headers = errors.headers(error)
    if isinstance(error, TooLarge) or error.code in ("body_timeout", RESTARTING):
        headers["connection"] = "close"  # the rest of the body is never read; the next process is elsewhere
    return Response(errors.body(error), error.status, headers, media_type="application/json")


def http_error_response(error: HTTPException, scope: Scope) -> Response:
    """Return one of Starlette's own refusals: unknown route, unknown method, broken request."""
    request = Request(scope)
    place = f"{request.method} {request.url.path[:200]}"
    allowed = _allowed(request) if error.status_code == 405 else ""
    if error.status_code == 404 or (error.status_code == 405 and not allowed):
        return error_response(NotFound(f"Unknown request URL: {place}.", code="unknown_url"))
    if allowed:
        problem = BadRequest(f"Not allowed here: {place}; expected {allowed}.", code="method_not_allowed")
    else:
        problem = BadRequest(f"{place}: {error.detail}")
    response = error_response(problem)
    response.status_code = error.status_code
    response.headers.update({**(error.headers or {}), **({"allow": allowed} if allowed else {})})
    return response


def _allowed(request: Request) -> str:
    """Return the methods that this path has, on all of its routes; "": there is no such path but perhaps a file."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    here = [route for route in routes if route.path_regex.match(request.url.path)]
    return ", ".join(sorted({method for route in here for method in route.methods or ()}))


def new_request_id() -> str:
    """Return an id for a request that brought none."""
    return f"req_{os.urandom(12).hex()}"


def _request_id(scope: Scope) -> str:
    given = header(scope, b"x-request-id")
    return given if given and _REQUEST_ID.fullmatch(given) else new_request_id()
