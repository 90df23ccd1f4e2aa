"""What one WebSocket may cost: uvicorn's protocol, with bounds where it has none.

    messages waiting: at most MAX_WAITING           1008
    messages and pings: RATE a second on average    read more slowly
    nothing is read while nothing can be written

Messages are bounded by uvicorn's `ws_max_size`, sends by `deadline`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, cast

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.utils import ClientDisconnected, is_ssl
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from chatserver.transports.lasting import forget
from chatserver.transports.lean import Signal

log = logging.getLogger(__name__)

WRITE_BUFFER = 32 * 1024
"""Bytes that wait for one client in this process, beside one event; the kernel holds some, too (`listening`)."""
MAX_WAITING = 1024
"""Messages that wait for the application, on one WebSocket."""
RATE = 200.0
"""Messages and pings a second that are read from one WebSocket, on average."""
BURST = 1000.0
"""How many of them may come at once."""
FRAMES = "chatserver.frames"
"""Where a `websocket.send` has texts, encoded, that are sent together: a frame each."""
_QUIET = logging.getLogger("uvicorn.error.websocket")
"""Not told of each socket that is accepted: that is no more than an access log, which HTTP has none of either."""
_QUIET.setLevel(logging.WARNING)


class WebSocketConnection(WebSocketsSansIOProtocol):
    """A WebSocket whose client cannot make this process keep more than the bounds above."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn = _Frames(max_size=self.config.ws_max_size, logger=self.logger)
        self.logger = _QUIET
        self.writable = Signal()
        self.writable.set()
        self._credit, self._counted = BURST, self.loop.time()
        self._brake: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over the connection from HTTP; as there, without asking for addresses."""
        self.connections.add(self)
        self.transport = cast("asyncio.Transport", transport)
        self.scheme = "wss" if is_ssl(self.transport) else "ws"
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
            log.info("a text message that is not UTF-8: closed with 1007")
            self.conn.fail(1007, "a text message must be UTF-8")
            self.handle_parser_exception()
            return
        super().send_receive_event_to_app()
        self._count()
        if self.queue.qsize() > MAX_WAITING and not self.close_sent:
            self.conn.fail(1008, "too many messages at once")
            self.handle_parser_exception()

    async def send(self, message: ASGISendEvent) -> None:
        """Send; our own messages bring text frames as bytes, which go out in one write."""
        frames: Sequence[bytes] | None = message.get(FRAMES)  # type: ignore[assignment]
        if frames is None:
            await super().send(message)
            if self.initial_response is not None and self.close_sent:
                self.handshake_complete = True  # by a refusal, which uvicorn logs as an endpoint's mistake
            return
        await self.writable.wait()
        if self.disconnected or self.conn.state is not State.OPEN:
            raise ClientDisconnected
        self.transport.write(b"".join([part for data in frames for part in (_head(len(data)), data)]))

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


def _head(length: int) -> bytes:
    """Return what stands before a whole text frame of a server: RFC 6455, section 5.2; there are no extensions."""
    if length < 126:
        return b"\x81%c" % length
    return b"\x81\x7e" + length.to_bytes(2) if length < 2**16 else b"\x81\x7f" + length.to_bytes(8)


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
