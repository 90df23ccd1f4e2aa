"""What one TCP connection may cost: uvicorn's HTTP protocol, with bounds where it has none.

    connection ──> too many already?                              503, come back
                   head: within HEAD_TIMEOUT, at most MAX_HEAD     408, 431
                   requests sent ahead: at most MAX_AHEAD          cut

Bodies are bounded in `middleware`, sends in `sending`; WebSockets in `websocket_connection`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import is_ssl
from websockets.http11 import Response

from chatserver.errors import BadRequest, ChatServerError, Unavailable
from chatserver.settings import Settings
from chatserver.transports.lasting import CONNECTION
from chatserver.transports.lean import Ahead, Flow, Head, Signal
from chatserver.transports.middleware import new_request_id
from chatserver.transports.turnstile import Turnstile
from chatserver.transports.websocket_connection import WRITE_BUFFER, WebSocketConnection
from chatserver.transports.websocket_handshake import answer_to, scope_of
from chatserver.wire import errors

HEAD_TIMEOUT = 10.0
"""Seconds in which a request's line and headers must arrive."""
KEEP_ALIVE = 30
"""Seconds that a connection is kept for another request: longer than clients keep theirs (httpx: 5 s, as uvicorn by
default), so that none is closed while a request is on its way."""
PING = 20.0
"""Seconds between pings on a WebSocket: what lies between keeps it open, and who is gone is noticed."""
PONG_WITHIN = 20.0
"""Seconds in which a ping must be answered; else the connection is closed with 1011."""
MAX_HEAD = 64 * 1024
"""Bytes of a request's line and headers."""
MAX_AHEAD = 16
"""Requests that a client may send before it has the answer to an earlier one."""


class ServerConfig(uvicorn.Config):
    """How uvicorn serves an application of ours."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        super().__init__(
            app,
            http=HttpConnection,
            ws=WebSocketConnection,
            ws_max_size=settings.max_body,
            timeout_keep_alive=KEEP_ALIVE,
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # nothing here asks for the scheme, or for who the client is
            server_header=False,
            timeout_graceful_shutdown=max(1, int(settings.drain)),
        )
        self.ping_every, self.pong_within = PING, PONG_WITHIN
        self.max_connections = settings.max_connections
        self.turnstile = Turnstile()


class HttpConnection(HttpToolsProtocol):
    """HTTP with a deadline and a bound for what comes before the body."""

    config: ServerConfig

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.pipeline = Ahead()  # type: ignore[assignment]
        self._head_bytes = 0
        self._in_head = True
        self._held: bytes | None = None
        self._served: RequestResponseCycle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._lost = False
        self._on_lost: Callable[[], object] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, or refuse it.

        Not uvicorn's own way: that asks the kernel seven times for addresses that nobody here wants to know.
        """
        self.connections.add(self)
        self.transport = transport
        self.flow = Flow(transport)
        self.scheme = "https" if is_ssl(transport) else "http"
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        if len(self.connections) > self.config.max_connections:
            self._refuse(503, Unavailable("The server has too many connections.", retry_after=5.0))
            return
        self._deadline = self.loop.call_later(HEAD_TIMEOUT, self._on_slow_head)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, and tell who waits for its end."""
        self._disarm()
        served = self._served
        if served is not None and served is not self.cycle and not served.response_complete:
            served.disconnected = True  # uvicorn tells the newest request alone
            served.message_event.set()
        super().connection_lost(exc)
        self._lost, self._held = True, None
        if self._on_lost is not None:
            self._on_lost()

    def shutdown(self) -> None:
        """Close when what has come is answered: the server ends."""
        self._begin()
        super().shutdown()

    @property
    def clogged(self) -> bool:
        """See `lasting.Connection`."""
        return self.flow.write_paused

    @property
    def heard(self) -> bool:
        """See `lasting.Connection`."""
        return not self.cycle.more_body

    @property
    def door(self) -> str:
        """Where its client has come in: `sse` while events are sent, `http` for all else, and while it is idle."""
        return "http" if self._on_lost is None else "sse"

    def doors(self) -> dict[str, int]:
        """See `lasting.Connection`."""
        found = dict.fromkeys(("http", "sse", WebSocketConnection.door), 0)
        for connection in self.connections:
            assert isinstance(connection, HttpConnection | WebSocketConnection)
            found[connection.door] += 1
        return found

    def when_lost(self, call: Callable[[], object] | None) -> None:
        """See `lasting.Connection`."""
        self._on_lost = call
        if self._lost and call is not None:
            call()

    def data_received(self, data: bytes) -> None:
        """Take bytes. A request waits for its turn, and then those of its head count."""
        if self._held is not None:
            self._held += data
            self.transport.pause_reading()  # not at once: it costs two calls of the kernel, and one packet is the rule
        elif self._in_head and not self._head_bytes and not self.config.turnstile.enter(self._begin):
            self._held = data
            self._disarm()  # the client has done its part
            self._unset_keepalive_if_required()
        else:
            self._take(data)

    def _begin(self) -> bool:
        """Take what waits for its turn; return False if its client has gone."""
        data, self._held = self._held, None
        if data is None or self.transport.is_closing():
            return False
        if not self.flow.read_paused:
            self.transport.resume_reading()
        self._take(data)
        return True

    def _take(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
            if self._deadline is None and not self._answering:
                self._deadline = self.loop.call_later(HEAD_TIMEOUT, self._on_slow_head)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD and not self.transport.is_closing():
            self._refuse(431, BadRequest(f"The headers: expected at most {MAX_HEAD} bytes, got more"))

    def on_headers_complete(self) -> None:
        """Start the request."""
        self._in_head = False
        self._disarm()
        super().on_headers_complete()
        if self.cycle is not None:  # no protocol switch
            self.cycle.message_event = Signal()
            self.cycle.transport = Head(self.cycle)  # type: ignore[assignment]
            self.cycle.scope[CONNECTION] = self  # type: ignore[typeddict-unknown-key]
        if len(self.pipeline) > MAX_AHEAD:
            self.transport.abort()
            raise ConnectionError("too many requests ahead of their answers")

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over. Not uvicorn's own way: that writes the head as text again, to be parsed anew."""
        if self._answering or not self.url.isascii():
            self._refuse(400, BadRequest("The request: expected a WebSocket's handshake by itself, in ASCII"))
            return
        self.connections.discard(self)
        scope: Any = self.scope
        answer = answer_to(scope["method"], scope["http_version"], self.url, self.headers)
        if isinstance(answer, Response):
            self.transport.write(answer.serialize())
            self.transport.close()
            return
        opening = scope_of(scope, self.url)
        connection = WebSocketConnection(self.config, self.server_state, self.transport, opening, answer)
        self.transport.set_protocol(connection)
        self.parser = None  # type: ignore[assignment]  # it has this object, which has it
        connection.begin(cast("ASGIApp", self.app))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._served = cycle
        super()._start_asgi_task(cycle, app)

    def on_message_complete(self) -> None:
        """End the request's body: what follows is the next one's head."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        self._refuse(400, BadRequest(f"The request: {msg}"))

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _on_slow_head(self) -> None:
        self._deadline = None
        if self._head_bytes:
            self._refuse(408, BadRequest(f"The headers: expected all of them within {HEAD_TIMEOUT:g} s"))
        else:
            self.transport.close()

    def _refuse(self, status: int, error: ChatServerError) -> None:
        """Answer without the application, and close. In mid-answer there is nothing to say: then only close."""
        if not self._answering and not self.transport.is_closing():
            body = errors.body(error)
            fields = {
                "content-type": "application/json",
                "content-length": str(len(body)),
                "connection": "close",
                "x-request-id": new_request_id(),
            }
            lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
            lines += [f"{name}: {value}" for name, value in (fields | errors.headers(error)).items()]
            self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.transport.close()
