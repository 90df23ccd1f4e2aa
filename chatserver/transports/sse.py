"""Server-sent events, and JSON answers that take long.

Pings are a bare comment line, without the blank line that would end an event: the `openai` SDK takes a
blank line after an `id:` for an event without data, and fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache
from typing import Generic, Protocol, TypeVar

from sse_starlette import EventSourceResponse
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from chatserver.domain.response import Outcome
from chatserver.domain.tape import Record
from chatserver.errors import ChatServerError
from chatserver.service.web.admission import Ticket
from chatserver.service.web.reader import Reader, outcome_in
from chatserver.transports.lasting import CONNECTION, Connection, leave
from chatserver.transports.sending import Sending
from chatserver.wire import errors

T = TypeVar("T")

PING = 10.0
"""Seconds between pings, and between blank lines before a JSON answer."""
SEND_TIMEOUT = 30.0
"""Seconds for which a client may not read at all before its connection is given up."""
PADDING = b":" + b" " * 512 + b"\n"
"""A comment that gets the first event past buffers of mobile browsers."""


class Source(Protocol):
    """What is read for an answer, and closed with it; dismissed, it raises the error that ends the answer."""

    async def aclose(self) -> None: ...  # noqa: D102
    def dismiss(self, error: ChatServerError) -> None: ...  # noqa: D102


class EventStream(EventSourceResponse):
    """Sends events, and closes the reader that they come from whatever happens; it is dismissed when its key ends."""

    background = None

    def __init__(self, reader: Source, content: AsyncIterator[bytes], ticket: Ticket) -> None:
        # The library's own __init__ takes as long as the first two events, nearly all for what `Sending` does instead.
        self.status_code = 200
        self.raw_headers = list(_headers())
        self._content = content
        self._reader = reader
        self._ticket = ticket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Begin the answer, and leave the rest to last; in place of the library's own way, see `Sending`."""
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        try:
            if scope[
                CONNECTION
            ].clogged:  # what an earlier answer left in the connection's buffer is read first
                async with asyncio.timeout(SEND_TIMEOUT):
                    await send(start)
            else:
                await send(start)
        except BaseException:
            await self._reader.aclose()
            raise
        leave(scope, _Body(scope[CONNECTION], self._reader, self._content, self._ticket).send)


@cache
def _headers() -> tuple[tuple[bytes, bytes], ...]:
    """Return the library's headers of an event stream."""

    async def nothing() -> AsyncIterator[bytes]:
        return
        yield b""

    library = EventSourceResponse(nothing(), headers={"cache-control": "no-cache, no-transform"})
    return tuple(library.raw_headers)


class _Body:
    """What is left of an event stream when it has begun."""

    __slots__ = ("_connection", "_content", "_reader", "_ticket")

    def __init__(
        self, connection: Connection, reader: Source, content: AsyncIterator[bytes], ticket: Ticket
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._content = content
        self._ticket = ticket

    async def send(self, _receive: Receive, send: Send) -> None:
        """Send it. Raises TimeoutError if the client read nothing for SEND_TIMEOUT seconds."""
        unwatch = self._ticket.watch(self._reader.dismiss)
        sending = Sending(self._connection, send, ping=PING, timeout=SEND_TIMEOUT)
        try:
            await sending.run(self._content)
        finally:
            # The content may never have begun when the client goes, so its own clean-up is not enough.
            sending.close()
            unwatch()
            await self._reader.aclose()


class Events:
    """What was read already, then the rest of the tape, as bytes; an error that ends it is said in its place.

    An iterator, not a generator: a step costs half as much, and there is one for nearly every token.
    """

    def __init__(
        self,
        reader: Reader,
        records: list[Record],
        encode: Callable[[Record], bytes],
        on_error: Callable[[ChatServerError], bytes],
        *,
        opening: bytes = b"",
    ) -> None:
        self._reader = reader
        self._encode = encode
        self._on_error = on_error
        self._opening = opening + b"".join(map(encode, records))
        self._failed = False

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> bytes:
        lines, self._opening = self._opening, b""
        try:
            while not lines:
                if self._failed or self._reader.ended:
                    raise StopAsyncIteration
                lines = b"".join([self._encode(record) for record in await self._reader.batch()])
        except ChatServerError as error:
            self._failed = True
            return self._on_error(error)
        return lines


class SlowJSON(StreamingResponse, Generic[T]):
    """A JSON answer that is not there yet: blank lines keep the connection alive until it is.

    The status is sent before the outcome is known: a failure is then an error object in a 200 answer.
    """

    def __init__(
        self,
        source: Source,
        wait: Callable[[], Awaitable[T | None]],
        render: Callable[[T], bytes],
        ticket: Ticket,
    ) -> None:
        super().__init__(self._wait(wait, render), media_type="application/json")
        self._source = source
        self._ticket = ticket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send, and close the source whatever happens."""
        leave = self._ticket.watch(self._source.dismiss)
        try:
            await super().__call__(scope, receive, send)
        finally:
            leave()
            await self._source.aclose()

    async def _wait(
        self, wait: Callable[[], Awaitable[T | None]], render: Callable[[T], bytes]
    ) -> AsyncIterator[bytes]:
        try:
            yield b"\n"
            while (found := await wait()) is None:
                yield b"\n"
            yield render(found)
        except ChatServerError as error:
            yield errors.body(error)


async def whole(
    source: Source,
    wait: Callable[[], Awaitable[T | None]],
    render: Callable[[T], bytes],
    ticket: Ticket,
) -> Response:
    """Return a JSON answer: as a whole if `wait` finds what `render` needs at once, else a slow one.

    `wait` returns None after PING seconds. Raises what both raise, before anything was sent.
    """
    found = await wait()
    if found is None:
        return SlowJSON(source, wait, render, ticket)
    await source.aclose()
    return Response(render(found), media_type="application/json")


async def wait_a_while(reader: Reader) -> Outcome | None:
    """Read for PING seconds at most; return the outcome if the end was reached. It holds the whole text."""
    deadline = asyncio.get_running_loop().time() + PING
    while not reader.ended:
        left = deadline - asyncio.get_running_loop().time()
        if left <= 0:
            return None
        outcome = outcome_in(await reader.batch(left))
        if outcome is not None:
            return outcome
    raise AssertionError(f"{reader.response_id}: the tape ended without an outcome")
