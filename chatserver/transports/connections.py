"""What one TCP connection may cost: uvicorn's HTTP and WebSocket protocols, with bounds where they have none.

    connection ──> too many already?                              503, come back
                   head: within HEAD_TIMEOUT, at most MAX_HEAD     408, 431
                   requests sent ahead: at most MAX_AHEAD          cut
    WebSocket ───> messages waiting: at most MAX_WAITING           1008
                   messages and pings: RATE a second on average    read more slowly
                   nothing is read while nothing can be written

Bodies are bounded in `middleware`, messages by uvicorn's `ws_max_size`, sends by `deadline`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn._types import ASGIReceiveEvent
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from chatserver.errors import BadRequest, ChatServerError, Unavailable
from chatserver.settings import Settings
from chatserver.transports.lasting import CONNECTION, forget
from chatserver.transports.lean import Ahead, Flow, Signal
from chatserver.transports.middleware import new_request_id
from chatserver.wire import errors

HEAD_TIMEOUT = 10.0
"""Seconds in which a request's line and headers must arrive."""
KEEP_ALIVE = 30
"""Seconds that a connection is kept for another request: longer than clients keep theirs (httpx: 5 s, as uvicorn by
default), so that none is closed while a request is on its way."""
MAX_HEAD = 64 * 1024
"""Bytes of a request's line and headers."""
MAX_AHEAD = 16
"""Requests that a client may send before it has the answer to an earlier one."""
WRITE_BUFFER = 32 * 1024
"""Bytes that wait for one client in this process, beside one event; the kernel holds some, too (`listening`)."""
MAX_WAITING = 1024
"""Messages that wait for the application, on one WebSocket."""
RATE = 200.0
"""Messages and pings a second that are read from one WebSocket, on average."""
BURST = 1000.0
"""How many of them may come at once."""


class ServerConfig(uvicorn.Config):
    """How uvicorn serves an application of ours."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        super().__init__(
            app,
            http=HttpConnection,
            ws=WebSocketConnection,
            ws_max_size=settings.max_body,
            ws_ping_interval=20.0,
            ws_ping_timeout=20.0,
            ws_per_message_deflate=False,  # costs more CPU and memory than deltas gain
            timeout_keep_alive=KEEP_ALIVE,
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, int(settings.drain)),
        )
        self.max_connections = settings.max_connections


class HttpConnection(HttpToolsProtocol):
    """HTTP with a deadline and a bound for what comes before the body."""

    config: ServerConfig

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.pipeline = Ahead()  # type: ignore[assignment]
        self._head_bytes = 0
        self._in_head = True
        self._deadline: asyncio.TimerHandle | None = None
        self._lost = False
        self._on_lost: Callable[[], object] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, or refuse it."""
        super().connection_made(transport)
        self.flow = Flow(transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        if len(self.connections) > self.config.max_connections:
            self._refuse(503, Unavailable("The server has too many connections.", retry_after=5.0))
            return
        self._deadline = self.loop.call_later(HEAD_TIMEOUT, self._on_slow_head)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, and tell who waits for its end."""
        self._disarm()
        super().connection_lost(exc)
        self._lost = True
        if self._on_lost is not None:
            self._on_lost()

    def when_lost(self, call: Callable[[], object] | None) -> None:
        """See `lasting.Connection`."""
        self._on_lost = call
        if self._lost and call is not None:
            call()

    def data_received(self, data: bytes) -> None:
        """Take bytes; those of a head count."""
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
            self.cycle.scope[CONNECTION] = self  # type: ignore[typeddict-unknown-key]
        if len(self.pipeline) > MAX_AHEAD:
            self.transport.abort()
            raise ConnectionError("too many requests ahead of their answers")

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


class WebSocketConnection(WebSocketsSansIOProtocol):
    """A WebSocket whose client cannot make this process keep more than the bounds above."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn = _Frames(max_size=self.config.ws_max_size, logger=logging.getLogger("uvicorn.error"))
        self.writable = Signal()
        self.writable.set()
        self._credit, self._counted = BURST, self.loop.time()
        self._brake: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over the connection from HTTP."""
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._brake is not None:
            self._brake.cancel()
        super().connection_lost(exc)

    def start_keepalive(self) -> None:
        """Begin to ping. The handshake is over: what it needed is forgotten."""
        super().start_keepalive()
        del self.request, self.response
        forget(self.scope)  # type: ignore[arg-type]  # a typed dictionary of uvicorn's

    def pause_writing(self) -> None:
        """Stop reading, too: the answer to a ping is written, wanted or not."""
        super().pause_writing()
        self._steer()

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        self._steer()

    def handle_text(self, event: Frame) -> None:
        """Take a text frame, whole or the first of a message."""
        super().handle_text(event)
        self._make_room(event)

    def handle_bytes(self, event: Frame) -> None:
        """Take a binary frame, whole or the first of a message."""
        super().handle_bytes(event)
        self._make_room(event)

    def handle_cont(self, event: Frame) -> None:
        """Take the rest of a message. One buffer for all: a list of small parts costs 40 times their size."""
        self.frames[0] += event.data  # type: ignore[operator]
        if event.fin:
            self.send_receive_event_to_app()

    def handle_ping(self) -> None:
        """Answer a ping; it counts."""
        super().handle_ping()
        self._count()

    def send_receive_event_to_app(self) -> None:
        """Hand a message over; it counts. What is no UTF-8 ends the connection, in one line of the log."""
        if self.curr_msg_data_type == "text" and not _is_text(self.frames) and not self.close_sent:
            self.logger.info("a text message that is not UTF-8: closed with 1007")
            self.conn.fail(1007, "a text message must be UTF-8")
            self.handle_parser_exception()
            return
        super().send_receive_event_to_app()
        self._count()
        if self.queue.qsize() > MAX_WAITING and not self.close_sent:
            self.conn.fail(1008, "too many messages at once")
            self.handle_parser_exception()

    async def receive(self) -> ASGIReceiveEvent:
        """Return the next message; reading goes on when none is left and nothing else forbids it."""
        message = await self.queue.get()
        if self.queue.empty():
            self.read_paused = False
            self._steer()
        return message

    def _make_room(self, event: Frame) -> None:
        if not event.fin:
            self.frames = [bytearray(event.data)]  # type: ignore[list-item]

    def _count(self) -> None:
        now = self.loop.time()
        self._credit = min(BURST, self._credit + (now - self._counted) * RATE) - 1
        self._counted = now
        if self._credit < 0 and self._brake is None:
            self._brake = self.loop.call_later(-self._credit / RATE, self._release)
            self._steer()

    def _release(self) -> None:
        self._brake = None
        self._steer()

    def _steer(self) -> None:
        """Read, or do not."""
        if self.transport.is_closing():
            return
        if self.read_paused or self._brake is not None or not self.writable.is_set():
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()


def _is_text(frames: Sequence[bytes | bytearray]) -> bool:
    """Whether one whole message is UTF-8; nearly all are ASCII, and seen to be at a glance."""
    try:
        _ = [frame.isascii() or frame.decode() for frame in frames]
    except UnicodeDecodeError:
        return False
    return True


class _Frames(ServerProtocol):
    """The protocol of `websockets`, with RFC 6455, section 5.4: a close frame may come amid a fragmented message."""

    def recv_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)
