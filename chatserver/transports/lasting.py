"""What outlasts its request: streams and sockets, run when all layers around their endpoint have returned.

    request ──> layers ──> endpoint: begins the answer, says what lasts ──> layers return ──> what lasts runs, alone

A layer that awaits what is inside it keeps its frame, its closures and the request for as long: over a dozen of them
took half the memory of an idle stream, and were passed by every event. See decision 34.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger(__name__)

CONNECTION = "chatserver.connection"
"""Where a scope has the `Connection`."""
REQUEST_ID = "chatserver.request_id"
"""Where a scope has the request's id."""
_RUN = "chatserver.lasting"
_KEPT = ("type", "method")
"""What uvicorn asks a scope for after the start of an answer."""

Run = Callable[[Receive, Send], Awaitable[None]]


class Connection(Protocol):
    """The TCP connection of a request."""

    @property
    def clogged(self) -> bool:
        """Whether a send would have to wait for the client to read."""
        ...

    @property
    def heard(self) -> bool:
        """Whether the whole body of the newest request has come."""
        ...

    def doors(self) -> Mapping[str, int]:
        """Return how many connections this process has open, by their door: http, sse or websocket."""
        ...

    def when_lost(self, call: Callable[[], object] | None) -> None:
        """Have `call` called when the client has gone, now if it has already; None: nobody any more."""
        ...


class Application(Starlette):
    """An application whose endpoints may leave something that lasts.

    Its layers are ours alone: Starlette's two for what is raised would stand around every request, and `Envelope`
    answers all of that.
    """

    def build_middleware_stack(self) -> ASGIApp:
        """Return the routes with our layers around them."""
        app: ASGIApp = self.router
        for layer, arguments, options in reversed(self.user_middleware):
            app = layer(app, *arguments, **options)
        return app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, then what lasts of it. WebSockets go by the layers, which are about HTTP all of them."""
        if scope["type"] == "websocket":
            await self.router(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)
        run = scope.pop(_RUN, None)
        if run is None:
            return
        name = f"{scope.get(REQUEST_ID, scope['type'])} {scope['path']}"
        if scope["type"] == "http":
            forget(scope)
        try:
            await run(receive, send)
        except TimeoutError:
            # The client has not read for so long that its answer was given up; it may come back and resume.
            log.info("%s: the client stopped reading", name)
        except Exception:
            log.exception("%s failed amid its answer", name)
            raise


def header(scope: Scope, name: bytes) -> str | None:
    """Return the first header of a name in lower case, None if there is none.

    As Starlette's `Headers` do, without an object and an exception for each that is not there.
    """
    for given, value in scope["headers"]:
        if given == name:
            return value.decode("latin-1")
    return None


def headers(scope: Scope) -> dict[str, str]:
    """Return the headers, names in lower case; of several with one name the first, as Starlette's `Headers` do."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}


def leave(scope: Scope, run: Run) -> None:
    """Have `run` called with the server's own `receive` and `send` once the layers have returned.

    For an endpoint that has begun its answer, or that of a WebSocket. Nothing must be awaited after it.
    """
    scope[_RUN] = run


def forget(scope: Scope) -> None:
    """Forget the request: headers, path, what layers have put there. The connection's copy of the headers, too."""
    scope.get("headers", []).clear()  # uvicorn's connection has the same list
    kept = {name: scope[name] for name in _KEPT if name in scope}
    scope.clear()
    scope.update(kept)
