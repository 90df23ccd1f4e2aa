"""One WebSocket as text frames, with its limits: sizes, how long a client may read nothing, how long it may be idle.

Close codes, and whether the client may come back:

    1000  the client closed
    1008  over 1,024 frames at once, which nobody had asked for (see `connections`)  no
    1009  a frame was too large (4513 from us)                               not with that frame
    1011  a ping was not answered within 20 s                                at once, and attach
    1012  the server restarts                                                at once, and attach
    1013  the client read too slowly, or the store did not answer            at once, and attach
    4408  nothing was asked or answered for long (CHATSERVER_IDLE)            when there is something to ask
    4500  too many frames could not be understood, or a binary one           no
    4501  no valid key                                                       with another key
    4503  a page of another origin                                           no
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping, Sequence

from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from chatserver.errors import BadRequest, ChatServerError, TooLarge, Unauthenticated, Unavailable
from chatserver.service.web.follower import RESTARTING, SLOW_READER
from chatserver.transports.lasting import headers
from chatserver.transports.websocket_connection import FRAMES
from chatserver.wire.errors import nested_event

SEND_TIMEOUT = 30.0
"""Seconds for which a client may not read at all."""
CLOSE_TIMEOUT = 5.0
IDLE = "idle"
_COME_BACK = {SLOW_READER: 1013, RESTARTING: 1012, IDLE: 4408}
"""Errors that end the connection, not one answer, and the close codes that bring the client back."""
GOODBYES = (WebSocketDisconnect, OSError)
"""What a client that has gone raises here."""


class FrameSocket:
    """One socket. Whoever finds that the connection must end says so by `end`.

    One timer sees to both clocks: a time-out for each send would cost more than the send.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        max_frame: int,
        idle: float,
    ) -> None:
        """Take frames of up to `max_frame` bytes, and end after `idle` seconds of silence while not `busy`."""
        self._scope = scope
        self._receive, self._send = receive, send
        self._max_frame = max_frame
        self._seconds_idle = idle
        self.busy = False
        """Whether anything goes on: to be set by who knows."""
        self._loop = asyncio.get_running_loop()
        self._pending = 0  # sends that have not gone through
        self._used_at = self._sent_at = self._loop.time()
        self._clock = self._loop.call_later(min(idle, SEND_TIMEOUT), self._look)
        self._reason: ChatServerError | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the handshake, until it is over."""
        return headers(self._scope)

    @property
    def offered(self) -> Sequence[str]:
        """The subprotocols that the client offers, until the handshake is over."""
        return self._scope.get("subprotocols", [])

    async def accept(self, subprotocol: str | None, headers: Mapping[str, str]) -> None:
        """End the handshake."""
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self._receive()  # that somebody wants to connect, which is known
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": pairs})

    async def receive(self) -> bytes:
        """Return the next frame. Raises BadRequest for a binary one, TooLarge, WebSocketDisconnect."""
        message = await self._receive()
        self._used_at = self._loop.time()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        text = message.get("text")
        if text is None:
            raise BadRequest("Frames: expected text, got binary")
        data = text.encode("utf-8", "replace")
        if len(data) > self._max_frame:
            raise TooLarge(f"Frames: expected at most {self._max_frame} bytes, got {len(data)}")
        return data

    async def send(self, *events: bytes) -> None:
        """Send events, a frame each, in one write. The deadline ends the connection if the client does not read."""
        if self._pending == 0:
            self._sent_at = self._loop.time()
        self._pending += 1
        try:
            await self._send({"type": "websocket.send", FRAMES: events})
        finally:
            self._pending -= 1
        if self._pending:  # the others have their time anew
            self._sent_at = self._loop.time()

    async def serve(self, work: Coroutine[None, None, None]) -> None:
        """Do `work`, in the caller's task, until it ends or the connection must. Raises what that ends with."""
        task = self._serving = asyncio.current_task()
        assert task is not None
        try:
            if self._reason is None:
                await work
        except asyncio.CancelledError:
            if self._reason is None or task.uncancel() > 0:
                raise
        finally:
            self._serving = None
            work.close()
        if self._reason is not None:
            raise self._reason

    def end(self, error: ChatServerError) -> None:
        """Have the connection end with `error`, if nothing has ended it yet."""
        if self._reason is None:
            self._reason = error
            if self._serving is not None:
                self._serving.cancel()

    async def close(self, error: ChatServerError) -> None:
        """Say why, and close; a client that does not read is not waited for."""
        unavailable = _COME_BACK[SLOW_READER] if isinstance(error, Unavailable) else error.close_code
        code = _COME_BACK.get(error.code, unavailable)
        with contextlib.suppress(TimeoutError, RuntimeError, *GOODBYES):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                if error.code != SLOW_READER:
                    await self.send(nested_event(error))
                reason = error.message[:100].encode()[:120].decode(errors="ignore")
                await self._send({"type": "websocket.close", "code": code, "reason": reason})

    def release(self) -> None:
        """Stop the clock. Idempotent."""
        self._clock.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        if self.busy:
            self._used_at = now
        late = (self._sent_at if self._pending else now) + SEND_TIMEOUT
        idle = self._used_at + self._seconds_idle
        if late <= now:
            message = f"Nothing was read for {SEND_TIMEOUT:g} s: come back and attach."
            self.end(Unavailable(message, code=SLOW_READER))
        elif idle <= now:
            self.end(Unavailable("Nothing was asked for long: connect again when needed.", code=IDLE))
        else:
            self._clock = self._loop.call_at(min(late, idle), self._look)


def ends_all(error: ChatServerError) -> bool:
    """Whether an error is about the connection, not about one answer."""
    return error.code in _COME_BACK or isinstance(error, Unauthenticated)
