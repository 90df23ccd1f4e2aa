"""What goes on at once on one WebSocket: lanes of answers one after the other, attached answers, feeds."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from chatserver.domain.response import Response
from chatserver.domain.tape import Record
from chatserver.errors import ChatServerError, Overloaded, Unavailable
from chatserver.service.web.reader import Reader
from chatserver.transports.frame_socket import GOODBYES, FrameSocket, ends_all
from chatserver.transports.sending import SLICE
from chatserver.wire import frames
from chatserver.wire.response_events import ResponseEvents

log = logging.getLogger(__name__)

MAX_LANES = 64
"""Lanes, attached answers and feeds of one connection."""
MAX_QUEUED = 16
"""Creates that wait in one lane."""
MAX_EVENT = 2**20
"""Bytes of an event that brings log-probabilities: what the `websockets` package takes by default, the least of all
clients that we know; the `openai` SDKs and browsers take any size."""


class Lanes:
    """The work of one connection, each piece in a task of its own. `cancel` it in the end."""

    def __init__(
        self,
        socket: FrameSocket,
        answer: Callable[[frames.Create], Awaitable[None]],
        error: Callable[[ChatServerError, str | None], bytes],
    ) -> None:
        """`answer` answers one create; `error` returns the event that tells a lane what went wrong."""
        self._socket = socket
        self._answer = answer
        self._error = error
        self._lanes: dict[str | None, deque[frames.Create]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def put(self, frame: frames.Create) -> None:
        """Put a create into its lane, which it may open. Raises Overloaded."""
        lane = self._lanes.get(frame.stream_id)
        if lane is None:
            lane = deque[frames.Create]()
            self.spawn(self._run(frame.stream_id, lane))
            self._lanes[frame.stream_id] = lane
        elif len(lane) >= MAX_QUEUED:
            raise Overloaded(
                f"The lane holds {MAX_QUEUED} waiting requests: wait for an answer.", retry_after=1.0
            )
        lane.append(frame)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something beside the lanes; what it raises ends the connection. Raises Overloaded."""
        if len(self._tasks) >= MAX_LANES:
            work.close()
            raise Overloaded(
                f"The connection has {MAX_LANES} answers in progress: wait for one to end.", retry_after=1.0
            )
        task = asyncio.create_task(self._guard(work))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        self._socket.busy = True
        return task

    async def cancel(self) -> None:
        """End all of it. What was begun goes on without us."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, stream_id: str | None, lane: deque[frames.Create]) -> None:
        """Answer the creates of a lane, one after the other."""
        while lane:
            frame = lane[0]
            try:
                await self._answer(frame)
            except ChatServerError as error:
                if ends_all(error):
                    raise
                await self._socket.send(self._error(error, stream_id))
            lane.popleft()
        # No await between the last look and this: a frame that comes now opens a new lane.
        del self._lanes[stream_id]

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._socket.busy = bool(self._tasks)

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except GOODBYES:
            self._socket.end(Unavailable("the client has gone"))
        except ChatServerError as error:
            self._socket.end(error)
        except Exception:
            log.exception("a lane of a WebSocket failed")
            self._socket.end(ChatServerError("The server failed; its log has the details."))


async def relay(
    socket: FrameSocket,
    response: Response,
    reader: Reader,
    stream_id: str | None,
    after: int = -1,
    *,
    beside: bytes | None = None,
) -> None:
    """Send the events of one answer to its end, and close its reader. `beside`: a frame to send behind the first."""
    events = ResponseEvents(response, stream_id, most=MAX_EVENT)
    try:
        while not reader.ended:
            # few records as bytes at a time: records take ten times as much, for as long as a client stalls
            records = deque(await reader.batch())
            while records:
                together = _encoded(events, records, after)
                if beside is not None and together:
                    together.insert(1, beside)
                    beside = None
                if together:
                    await socket.send(*together)
    finally:
        await reader.aclose()


def _encoded(events: ResponseEvents, records: deque[Record], after: int) -> list[bytes]:
    """Return the events of the first records, of all if they are short. Takes them from `records`."""
    found: list[bytes] = []
    size = 0
    while records and size < SLICE:
        for event in events.encode(records.popleft(), after):
            found.append(event.data)
            size += len(event.data)
    return found
