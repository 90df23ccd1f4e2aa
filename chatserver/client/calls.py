"""HTTP calls: the key, the bounds, what each status means, and when to try again."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx

from chatserver.client.errors import ProtocolError, Unreachable, refusal
from chatserver.client.options import Options, pause_before

MAX_BODY = 64 * 1024 * 1024
"""Bytes of an answer that is no stream."""
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_BUSY = frozenset({408, 425, 429})


class Again(Exception):
    """What was tried may succeed later. `at_least`: seconds that the server asked to be left alone.

    `sent`: it may have happened, although no answer came.
    """

    def __init__(self, reason: str, *, at_least: float = 0.0, sent: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.at_least = at_least
        self.sent = sent


class Patience:
    """Counts failures in a row, and the time since things last went well."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._attempt = 0
        self._since: float | None = None

    def progress(self) -> None:
        """Begin anew: something came."""
        self._attempt, self._since = 0, None

    def wait(self, again: Again) -> float:
        """Return how long to wait before the next attempt. Raises Unreachable when patience is at its end."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        pause = again.at_least + pause_before(self._attempt)
        self._attempt += 1
        if now + pause - self._since > self._seconds:
            raise Unreachable(f"gave up after {self._seconds:g} s: {again.reason}") from again
        return pause


class Calls:
    """Calls to one server with one key."""

    def __init__(self, http: httpx.AsyncClient, options: Options) -> None:
        self._http = http
        self._options = options

    async def json(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: dict[str, Any] | None = None,
        *,
        safe: bool = False,
    ) -> Any:
        """Return the JSON answer to a call, tried again while that may help.

        `safe`: to do it twice is to do it once, so it is repeated even if it may have happened; GET and DELETE are.
        Raises Refused, Unreachable, ProtocolError.
        """
        safe = safe or method in ("GET", "DELETE")
        patience = Patience(self._options.patience)
        while True:
            try:
                return _decoded(await self._bytes(method, path, body, query))
            except Again as again:
                if again.sent and not safe:
                    raise Unreachable(
                        f"{method} {path} may or may not have happened: {again.reason}"
                    ) from again
                await asyncio.sleep(patience.wait(again))

    async def stream(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: dict[str, Any] | None = None,
        key: str | None = None,
    ) -> httpx.Response:
        """Open an event stream, once; the caller closes what is returned. 204: there is nothing more.

        `key`: its idempotency key.

        Raises Again, Refused, ProtocolError.
        """
        headers = {"accept": "text/event-stream"}
        if key is not None:
            headers["idempotency-key"] = key
        response = await self._open(method, path, body, query, headers)
        kind = response.headers.get("content-type", "")
        if response.status_code != 204 and not kind.startswith("text/event-stream"):
            await response.aclose()
            raise ProtocolError(f"{method} {path}: expected an event stream, got {kind[:60]!r}")
        return response

    async def _bytes(self, method: str, path: str, body: Any, query: dict[str, Any] | None) -> bytes:
        try:
            async with asyncio.timeout(self._options.call_timeout):
                response = await self._open(method, path, body, query, {})
                return await _whole(response)
        except TimeoutError as error:
            raise Again(f"no answer within {self._options.call_timeout:g} s") from error

    async def _open(
        self, method: str, path: str, body: Any, query: dict[str, Any] | None, headers: dict[str, str]
    ) -> httpx.Response:
        request = self._http.build_request(method, path, json=body, params=query, headers=headers)
        try:
            response = await self._http.send(request, stream=True)
        except httpx.TransportError as error:
            raise Again(_told(error), sent=not isinstance(error, _NOT_SENT)) from error
        if response.is_success:
            return response
        await _raise_for(response)
        raise AssertionError("not reached")


async def _raise_for(response: httpx.Response) -> None:
    """Raise what a status that is no success means."""
    status = response.status_code
    text = await _whole(response)
    busy = status in _BUSY and response.headers.get("x-should-retry") != "false"
    if busy or status >= 500:
        raise Again(f"{status}: {_message(text)}", at_least=_retry_after(response), sent=status not in _BUSY)
    if status < 400:
        raise ProtocolError(f"{response.request.url}: the server answered {status}")
    raise refusal(status, _loose(text))


async def _whole(response: httpx.Response) -> bytes:
    """Return the body and close. Raises Again, ProtocolError: too large."""
    body = bytearray()
    try:
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MAX_BODY:
                raise ProtocolError(f"{response.request.url}: an answer of more than {MAX_BODY} bytes")
    except httpx.TransportError as error:
        raise Again(_told(error)) from error
    finally:
        await response.aclose()
    return bytes(body)


def _retry_after(response: httpx.Response) -> float:
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            value = float(response.headers[name]) * unit
        except (KeyError, ValueError):
            continue
        if 0 <= value <= 86_400:
            return value
    return 0.0


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise ProtocolError("the server's answer is no JSON: is the address right?") from error


def _loose(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None  # a proxy's page: the status says enough


def _message(body: bytes) -> str:
    return str(refusal(0, _loose(body)))[:300]


def _told(error: httpx.TransportError) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
