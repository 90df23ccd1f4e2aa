"""/v1/responses as a WebSocket: many answers on one connection.

    frame in ── Create ──> lane (FIFO, one a stream_id) ──┐
             ── Attach ──> follower ──────────────────────┼──> one writer at a time ──> events out
             ── Cancel ──> the command                    ─┘

What the socket itself sees to, and its close codes: `frame_socket`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import orjson
from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from chatserver.domain.access import Scope as Permission
from chatserver.errors import (
    BadRequest,
    ChatServerError,
    NotFound,
    RateLimited,
    Unauthenticated,
)
from chatserver.service.web.admission import Caller, Ticket
from chatserver.transports.conversation_feed import tell
from chatserver.transports.door import Door, fingerprint, idempotency_key
from chatserver.transports.frame_socket import GOODBYES, FrameSocket, ends_all
from chatserver.transports.lanes import Lanes, relay
from chatserver.transports.lasting import leave
from chatserver.transports.middleware import error_response, new_request_id
from chatserver.wire import frames
from chatserver.wire.errors import nested_event
from chatserver.wire.limits import rate_headers, updated_event

log = logging.getLogger(__name__)

PATH = "/v1/responses"
AUTH_TIMEOUT = 5.0
"""Seconds in which the first message must bring the key."""
MAX_BAD_FRAMES = 32
"""Frames in a row that could not be understood."""
TOKEN_PROTOCOL = "openai-insecure-api-key."  # noqa: S105 - a prefix; the convention of OpenAI's browser SDK


def routes(door: Door) -> list[WebSocketRoute]:
    """Return the route."""
    return [WebSocketRoute(PATH, _Route(door))]


class _Route:
    """The route's own application: Starlette's would put two objects and two layers around each socket."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Leave the socket to last."""

        async def run(receive: Receive, send: Send) -> None:
            await Connection(self._door, scope, receive, send).run()

        leave(scope, run)


async def refuse_elsewhere(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a handshake at a path that has no WebSocket: 404, with the error body that HTTP has."""
    place = scope["path"][:200]
    answer = error_response(NotFound(f"Unknown WebSocket URL: {place}; expected {PATH}.", code="unknown_url"))
    answer.headers["x-request-id"] = new_request_id()
    await WebSocket(scope, receive, send).send_denial_response(answer)


class Connection:
    """One socket and the lanes on it."""

    def __init__(self, door: Door, scope: Scope, receive: Receive, send: Send) -> None:
        self._door = door
        self._chat = door.chat
        self._socket = FrameSocket(
            scope,
            receive,
            send,
            max_frame=door.settings.max_body,
            idle=door.settings.idle,
        )
        self._caller = Caller("", "", frozenset())
        self._ticket: Ticket | None = None
        self._lanes = Lanes(self._socket, self._answer, self._error)
        self._feeds: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Serve until one side closes. What was begun goes on without us."""
        offered = self._socket.offered
        chosen = next((name for name in offered if not name.startswith(TOKEN_PROTOCOL)), None)
        try:
            refusal = await self._look_at_handshake(offered)
            # Accept before refusing: a browser sees only 1006 of a refused handshake.
            await self._socket.accept(chosen, self._limits())
            if refusal is not None:
                raise refusal
            ticket = self._ticket or await self._first_message()
            unwatch = ticket.watch(self._socket.end)
            try:
                await self._socket.serve(self._take_frames())
            finally:
                unwatch()
        except GOODBYES:
            pass  # the client has gone; its answers go on
        except ChatServerError as error:
            await self._socket.close(error)
        finally:
            await self._lanes.cancel()
            self._socket.release()
            del self._lanes  # which has our methods: together they would wait for the garbage collector

    async def _look_at_handshake(self, offered: Sequence[str]) -> ChatServerError | None:
        """Let in who needs no key or brought it along; return why somebody must stay out."""
        try:
            caller = await self._caller_in_handshake(offered)
            if caller is not None:
                await self._let_in(caller)
        except ChatServerError as error:
            return error
        return None

    async def _caller_in_handshake(self, offered: Sequence[str]) -> Caller | None:
        keys, headers = self._door.keys, self._socket.headers
        keys.check_origin(headers)
        if not await keys.required() or "authorization" in headers:
            return await keys.caller(headers)
        tokens = [name.removeprefix(TOKEN_PROTOCOL) for name in offered if name.startswith(TOKEN_PROTOCOL)]
        return await keys.caller_of(tokens[0]) if tokens else None

    async def _first_message(self) -> Ticket:
        """Let in who brings the key in the first message. Raises Unauthenticated."""
        try:
            async with asyncio.timeout(AUTH_TIMEOUT):
                frame = frames.parse(await self._socket.receive())
        except (TimeoutError, BadRequest):
            frame = None
        if not isinstance(frame, frames.Authenticate):
            raise Unauthenticated(
                f"Missing API key: send the Authorization header, or the message "
                f'{{"type": "auth", "token": …}} first and within {AUTH_TIMEOUT:g} s.'
            )
        ticket = await self._let_in(await self._door.keys.caller_of(frame.token))
        limits = self._limits()
        accepted = {"type": "auth.accepted", **({"headers": limits} if limits else {})}
        await self._socket.send(orjson.dumps(accepted))
        return ticket

    async def _let_in(self, caller: Caller) -> Ticket:
        caller.check(Permission.GENERATE)
        self._caller = caller
        return await self._enter()

    def _limits(self) -> dict[str, str]:
        """Return what an HTTP answer would say in its headers about the key's limits."""
        verdict = self._ticket.verdict if self._ticket else None
        return rate_headers(verdict) if verdict else {}

    async def _enter(self) -> Ticket:
        """Take one request of the key. Raises RateLimited, Unauthenticated: it was revoked."""
        self._ticket = self._door.admission.ticket(self._caller)
        await self._ticket.enter()
        return self._ticket

    def _error(self, error: ChatServerError, stream_id: str | None) -> bytes:
        """Return an error event, with the key's limits if they are what it is about."""
        return nested_event(error, stream_id, self._limits() if isinstance(error, RateLimited) else None)

    async def _take_frames(self) -> None:
        bad = 0
        while True:
            text = await self._socket.receive()
            try:
                await self._take(frames.parse(text))
                bad = 0
            except Unauthenticated:
                raise
            except ChatServerError as error:
                bad += isinstance(error, BadRequest)
                await self._socket.send(self._error(error, frames.stream_id_in(text)))
                if bad >= MAX_BAD_FRAMES:
                    raise BadRequest(f"{bad} frames in a row could not be understood") from None

    async def _take(self, frame: frames.Frame) -> None:
        match frame:
            case frames.Create():
                self._lanes.put(frame)
            case frames.Attach():
                self._lanes.spawn(self._admitted(frame.stream_id, lambda: self._attach(frame)))
            case frames.Cancel():
                await self._enter()
                response = await self._chat.stop(self._caller.tenant, frame.response_id)
                await self._socket.send(frames.stop_accepted(response, frame.stream_id))
            case frames.Typing():
                await self._chat.warmth.expect(self._caller.tenant, frame.conversation_id)
            case frames.Subscribe():
                self._subscribe(frame)
            case frames.Authenticate():
                await self._socket.send(b'{"type":"auth.accepted"}')  # nothing to do any more

    def _subscribe(self, frame: frames.Subscribe) -> None:
        """Begin or end to tell of a conversation; whoever subscribes again is told anew."""
        telling = self._feeds.pop(frame.conversation_id, None)
        if telling is not None:
            telling.cancel()
        if frame.on:
            telling = self._feeds[frame.conversation_id] = self._lanes.spawn(
                self._admitted(
                    frame.stream_id, lambda: tell(self._chat, self._caller.tenant, self._socket, frame)
                )
            )
            telling.add_done_callback(lambda done: self._told(frame.conversation_id, done))

    def _told(self, conversation_id: str, telling: asyncio.Task[None]) -> None:
        if self._feeds.get(conversation_id) is telling:
            del self._feeds[conversation_id]

    async def _answer(self, frame: frames.Create) -> None:
        ticket = await self._enter()
        response, fresh = await self._chat.respond(
            self._caller.tenant,
            frame.ask,
            key=idempotency_key(frame.key, "idempotency_key"),
            fingerprint=fingerprint("responses", frame.body),
            payer=ticket,
        )
        reader = await self._chat.attach(response, fresh=fresh, resumable=True)
        limits = updated_event(ticket.verdict, frame.stream_id)
        await relay(self._socket, response, reader, frame.stream_id, beside=limits)

    async def _attach(self, frame: frames.Attach) -> None:
        response, reader = await self._chat.read(self._caller.tenant, frame.response_id, frame.after)
        await relay(self._socket, response, reader, frame.stream_id, frame.after)

    async def _admitted(self, stream_id: str | None, work: Callable[[], Awaitable[None]]) -> None:
        """Do what counts as a request of the key; what goes wrong is said in its lane."""
        try:
            await self._enter()
            await work()
        except ChatServerError as error:
            if ends_all(error):
                raise
            await self._socket.send(self._error(error, stream_id))
