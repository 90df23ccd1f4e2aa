"""One WebSocket: frames of the `websockets` package on one side, ASGI on the other.

handshake    `connections` takes it, `websocket_handshake` answers
bounds       a message: `ws_max_size`; what waits, and how fast it is read: `websocket_inbox`; sends: `frame_socket`
pings        `heartbeat`
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Scope
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode

from chatserver.transports.heartbeat import Heartbeat
from chatserver.transports.lasting import forget
from chatserver.transports.websocket_frames import Frames, text_head
from chatserver.transports.websocket_handshake import head_of, refusal, switching
from chatserver.transports.websocket_inbox import Inbox

if TYPE_CHECKING:
    from chatserver.transports.connections import ServerConfig

log = logging.getLogger(__name__)

WRITE_BUFFER = 32 * 1024
"""Bytes that wait for one client in this process, beside one event; the kernel holds some, too (`listening`)."""
CLOSE_WITHIN = 10.0
"""Seconds in which a client must answer our close frame, or read what is left for it."""
_DENIAL = ("websocket.http.response.start", "websocket.http.response.body")
FRAMES = "chatserver.frames"
"""Where a `websocket.send` has texts, encoded, that are sent together: a frame each."""


class WebSocketConnection(asyncio.Protocol):
    """A WebSocket whose client cannot make this process keep more than the bounds above.

    In place of uvicorn's, which parses the head of the handshake once more, stops and starts reading for each message,
    and keeps an empty queue for each connection.
    """

    door = "websocket"

    def __init__(
        self,
        config: ServerConfig,
        server: ServerState,
        transport: asyncio.Transport,
        scope: Scope,
        accept: str,
    ) -> None:
        """Take over `transport` from HTTP. `accept`: what our side of the handshake says."""
        self._config = config
        self._server = server
        self._transport = transport
        self._scope = scope
        self._accept = accept
        self._loop = asyncio.get_running_loop()
        self._frames = Frames(config.ws_max_size)
        self._inbox = Inbox(transport, {"type": "websocket.connect"})
        self._part = bytearray()  # of a message whose end has not come
        self._is_text = True
        self._opened = self._closing = self._lost = False
        self._heart: Heartbeat | None = None
        self._closing_late: asyncio.TimerHandle | None = None
        self._denial = b""
        server.connections.add(self)  # type: ignore[arg-type]  # uvicorn names its own classes

    def begin(self, app: ASGIApp) -> None:
        """Have the application serve it."""
        task = self._loop.create_task(self._run(app))
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)

    def shutdown(self) -> None:
        """Close: the server ends."""
        if not self._opened:
            self._refuse(refusal(503))
            return
        if not self._closing:
            self._end(1012)
            self._frames.send_close(1012)
            self._flush()
        self._leave()

    # What the transport calls

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._lost = True
        self._end(1005 if self._opened else 1006)
        self._inbox.stop()
        if self._closing_late is not None:
            self._closing_late.cancel()
        self._server.connections.discard(self)  # type: ignore[arg-type]
        self._frames.parser.close()  # it has what has it, which only the garbage collector would find

    def pause_writing(self) -> None:
        """Stop reading, too: the answer to a ping is written, wanted or not."""
        self._inbox.writable.clear()
        self._inbox.steer()

    def resume_writing(self) -> None:
        """Go on."""
        self._inbox.writable.set()
        self._inbox.steer()

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        self._frames.receive_data(data)
        if self._frames.parser_exc is not None:
            self._cut_off()
            return
        for frame in self._frames.events_received():
            assert isinstance(frame, Frame)  # the handshake is over for the package
            self._take(frame)

    # What the application calls

    async def send(self, message: Message) -> None:
        """Send; our own messages bring text frames as bytes, which go out in one write. Raises ClientDisconnected."""
        if not self._inbox.writable.is_set():
            await self._inbox.writable.wait()
        if self._closing:
            raise ClientDisconnected
        kind = message["type"]
        if kind == "websocket.send" and self._opened:
            self._send(message)
        elif kind == "websocket.close":
            self._close(message.get("code", 1000), message.get("reason") or "")
        elif kind == "websocket.accept" and not self._opened:
            self._open(message)
        elif kind in _DENIAL and not self._opened:
            self._deny(message)
        else:
            raise RuntimeError(f"{kind}: not expected here")

    async def _run(self, app: ASGIApp) -> None:
        try:
            await app(self._scope, self._inbox.get, self.send)
        except ClientDisconnected:
            pass
        except Exception:
            log.exception("a WebSocket failed")
        finally:
            if not self._opened:
                self._refuse(refusal(500))
            elif not self._closing:
                self._end(1006)
                self._leave()

    def _open(self, message: Message) -> None:
        """End the handshake: what it needed is forgotten."""
        headers = (*self._server.default_headers, *message.get("headers", ()))
        self._transport.write(switching(self._accept, message.get("subprotocol"), headers))
        self._opened = True
        self._heart = Heartbeat(
            self._loop,
            self._config.ping_every,
            self._config.pong_within,
            self._ping,
            lambda: self._cut_off(1011, "a ping was not answered"),
        )
        forget(self._scope)

    def _send(self, message: Message) -> None:
        frames: Sequence[bytes] | None = message.get(FRAMES)
        if frames is not None:
            self._transport.write(
                b"".join([part for data in frames for part in (text_head(len(data)), data)])
            )
            return
        text = message.get("text")
        if text is None:
            self._frames.send_binary(message["bytes"])
        else:
            self._frames.send_text(text.encode())
        self._flush()

    def _close(self, code: int, reason: str) -> None:
        if not self._opened:
            self._refuse(refusal(403))
            return
        self._end(code, reason)
        self._frames.send_close(code, reason)
        self._flush()
        self._closing_late = self._loop.call_later(CLOSE_WITHIN, self._transport.abort)

    def _deny(self, message: Message) -> None:
        """Refuse the handshake with an answer of HTTP: its start, then its body."""
        if "status" in message:
            self._denial = head_of(message["status"], message.get("headers", ()))
            return
        self._denial += message.get("body", b"")
        if not message.get("more_body", False):
            self._refuse(self._denial)

    def _refuse(self, answer: bytes) -> None:
        """Answer the handshake by something else, once."""
        if not self._closing:
            self._end(1006)
            self._transport.write(answer)
            self._leave()

    # What the client sends

    def _take(self, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
            self._is_text = opcode is Opcode.TEXT
            if frame.fin:
                self._deliver(frame.data)
            else:
                self._part = bytearray(frame.data)
        elif opcode is Opcode.CONT:
            self._part += frame.data  # one buffer for all: a list of small parts costs 40 times their size
            if frame.fin:
                part, self._part = self._part, bytearray()
                self._deliver(part)
            elif not frame.data:
                self._inbox.count()
        elif opcode is Opcode.PING:
            self._flush()
            self._inbox.count()
        elif opcode is Opcode.PONG:
            self._inbox.count()
            if self._heart is not None:
                self._heart.heard(frame.data)
        else:
            self._on_close()

    def _deliver(self, data: bytes | bytearray | memoryview) -> None:
        """Hand a message over; it counts. What is no UTF-8 ends the connection, in one line of the log."""
        self._inbox.count()
        if self._closing:
            return
        try:
            content = {"text": str(data, "utf-8")} if self._is_text else {"bytes": bytes(data)}
        except UnicodeDecodeError:
            log.info("a text message that is not UTF-8: closed with 1007")
            self._cut_off(1007, "a text message must be UTF-8")
            return
        self._inbox.put({"type": "websocket.receive", **content})
        if self._inbox.full:
            self._cut_off(1008, "too many messages at once")

    def _on_close(self) -> None:
        received = self._frames.close_rcvd
        assert received is not None
        self._end(received.code, received.reason)
        self._flush()
        self._leave()

    # What both bring about

    def _end(self, code: int, reason: str = "") -> None:
        """Tell the application, once; it sends no more."""
        if not self._closing:
            self._closing = True
            if self._heart is not None:
                self._heart.stop()
                self._heart = None
            self._inbox.close({"type": "websocket.disconnect", "code": code, "reason": reason})

    def _cut_off(self, code: int = 0, reason: str = "") -> None:
        """Close at once: with `code`, or with what the package has found."""
        if code:
            self._frames.fail(code, reason)
        said = self._frames.close_sent
        assert said is not None
        self._end(said.code, said.reason)
        self._flush()
        self._leave()

    def _leave(self) -> None:
        """Close the connection when what was written is read; within CLOSE_WITHIN at all events."""
        if self._lost:
            return
        if self._closing_late is None and self._transport.get_write_buffer_size():
            self._closing_late = self._loop.call_later(CLOSE_WITHIN, self._transport.abort)
        self._transport.close()

    def _ping(self, payload: bytes) -> None:
        self._frames.send_ping(payload)
        self._flush()

    def _flush(self) -> None:
        self._transport.write(b"".join(self._frames.data_to_send()))
