"""One answer as it comes: opened, taken up again after every cut, read once from its first event to its last."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx

from chatserver.client.calls import Again, Calls, Patience
from chatserver.client.errors import AnswerFailed, ClientError, ProtocolError
from chatserver.client.events import Created, Event, Finished, Lost, QueuePlace, TextDelta, event_of
from chatserver.client.options import Options
from chatserver.client.results import Result, result_of
from chatserver.client.sse import Decoder, Place

HEALTHY = 5.0
"""Seconds after which a stream that breaks counts as one that had worked."""


class Answer:
    """An answer, to be iterated inside `async with`. Leaving it does not stop it: `stop` does.

    `id` and `conversation_id` are known from the first event on, `result` at the end. `position` is that of the last
    event that was handed out; behind it a stream that breaks is taken up again.
    """

    def __init__(
        self,
        calls: Calls,
        options: Options,
        slots: asyncio.Semaphore,
        *,
        request: dict[str, Any] | None = None,
        key: str = "",
        response_id: str | None = None,
        after: int = -1,
    ) -> None:
        """Either `request` and its idempotency key, or the id of a response and the position `after` which to read."""
        self.id = response_id
        self.conversation_id: str | None = None
        self.position = after
        self.result: Result | None = None
        self._calls = calls
        self._slots = slots
        self._request, self._key = request, key
        self._patience = Patience(options.patience)
        self._stream: _Stream | None = None
        self._opened: deque[Event] = deque(maxlen=4)
        self._pause = 0.0
        self._held = False

    async def __aenter__(self) -> Answer:
        """Wait for a free slot and, for a new answer, until the server has taken it. Raises as iterating does."""
        await self._slots.acquire()
        self._held = True
        try:
            while self.id is None:
                event = await self._next()
                if not isinstance(event, Lost):
                    self._opened.append(event)
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave; the answer goes on."""
        await self.aclose()

    def __aiter__(self) -> Answer:
        """Iterate over the events."""
        return self

    async def __anext__(self) -> Event:
        """Return the next event. Raises Refused (KeyRefused, Gone), Unreachable, ProtocolError.

        May be cancelled, as by a time-out, and called again: nothing is lost.
        """
        if not self._held:
            raise ClientError("an answer is read inside `async with`")
        if self._opened:
            return self._opened.popleft()
        if self.result is not None:
            raise StopAsyncIteration
        return await self._next()

    async def texts(self) -> AsyncIterator[str]:
        """Iterate over the text alone. Raises AnswerFailed as well."""
        async for event in self:
            if isinstance(event, TextDelta):
                yield event.text
        self._check()

    async def finish(self) -> Result:
        """Read to the end and return the result. Raises AnswerFailed, and what iterating does."""
        async for _ in self:
            pass
        return self._check()

    async def stop(self) -> None:
        """Ask for the end; what was written is kept, the last event tells. Raises as iterating does."""
        assert self.id is not None, "it has an id since `async with`"
        await self._calls.json("POST", f"{_path(self.id)}/cancel", safe=True)

    async def aclose(self) -> None:
        """Close the stream and give the slot back."""
        await self._hang_up()
        if self._held:
            self._held = False
            self._slots.release()

    def _check(self) -> Result:
        assert self.result is not None
        if self.result.error is not None:
            raise AnswerFailed(*self.result.error)
        return self.result

    async def _next(self) -> Event:
        try:
            while True:
                if self._stream is None:
                    await asyncio.sleep(self._pause)
                    self._stream = _Stream(await self._open())
                event = await self._event(self._stream)
                if event is not None:
                    return event
        except Again as again:
            stream = self._stream
            await self._hang_up()
            if stream is not None and stream.age > HEALTHY:
                self._patience.progress()
            self._pause = self._patience.wait(again)
            return Lost(self.position, again.reason, self._pause)
        except BaseException:
            await (
                self._hang_up()
            )  # what was read of the stream is gone with it; the next one begins behind `position`
            raise

    async def _open(self) -> httpx.Response:
        if self.id is None:
            return await self._calls.stream("POST", "/v1/responses", self._request, key=self._key)
        query: dict[str, Any] = {"stream": "true"}
        if self.position >= 0:
            query["starting_after"] = self.position
        return await self._calls.stream("GET", _path(self.id), query=query)

    async def _event(self, stream: _Stream) -> Event | None:
        """Return the stream's next event, None for one that was handed out before. Raises Again, ProtocolError."""
        found = await stream.read()
        if found is None:  # nothing comes after `position`, so it has ended
            return self._finished(Finished(self.position, result_of(await self._stored())))
        if isinstance(found, Place):
            return QueuePlace(self.position, found.place)
        if found.get("type") == "error":
            raise Again(f"{found.get('code')}: {found.get('message')}")
        event = event_of(found)
        if event.position <= self.position:
            return None
        self._patience.progress()
        self.position = event.position
        if isinstance(event, Created):
            self.id, self.conversation_id = event.response_id, event.conversation_id
        return self._finished(event) if isinstance(event, Finished) else event

    def _finished(self, event: Finished) -> Finished:
        self.result = event.result
        self.conversation_id = event.result.conversation_id
        return event

    async def _stored(self) -> dict[str, Any]:
        assert self.id is not None
        return await self._calls.json("GET", _path(self.id))

    async def _hang_up(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()


class _Stream:
    """One HTTP answer that is an event stream."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._chunks = response.aiter_bytes()
        self._decoder = Decoder()
        self._found: deque[Any] = deque()
        self._began = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since it was opened."""
        return time.monotonic() - self._began

    async def read(self) -> dict[str, Any] | Place | None:
        """Return the next event, None if there is none and will be none. Raises Again, ProtocolError."""
        if self._response.status_code == 204:
            return None
        while not self._found:
            try:
                self._found += self._decoder.feed(await anext(self._chunks))
            except StopAsyncIteration:
                raise Again("the stream ended before the answer did") from None
            except httpx.HTTPError as error:
                raise Again(f"{type(error).__name__}: {error}") from error
        found = self._found.popleft()
        return found if isinstance(found, Place) else _object(found.json)

    async def aclose(self) -> None:
        """Close the connection if the answer was not read to its end."""
        await self._response.aclose()


def _path(response_id: str) -> str:
    return f"/v1/responses/{quote(response_id, safe='')}"


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise ProtocolError(f"an event that is no JSON: {data[:60]!r}") from error
    if not isinstance(value, dict):
        raise ProtocolError(f"an event that is no object: {data[:60]!r}")
    return value
