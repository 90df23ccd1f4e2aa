"""One server: a bounded set of connections, pipelines of commands, subscriptions.

redis-py makes the connections (URL, TLS, authentication); a pipeline is packed by hiredis in one go
and its replies are read as they are. Error replies are values here, for the client to sort out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import hiredis
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from chatserver.adapters.valkey.scripts import Command
from chatserver.errors import BadRequest

Reply = Any
"""bytes, int, None, a list of replies, or a ResponseError."""

CONNECTIONS = 32
"""Bound on the connections of one process to one server; callers past it wait, within their time-out."""
CONNECT_TIMEOUT = 3.0
EXCHANGE_TIMEOUT = 8.0
"""Seconds for a whole pipeline, waiting for a connection included."""
PING_AFTER = 4.0
"""Seconds of silence on a subscription after which the peer is asked, and then given for its answer."""


class LinkLost(Exception):
    """The server did not answer; whether the commands ran is unknown. `str(error)` says what happened."""


class Link:
    """One server. Safe for concurrent use within one event loop."""

    def __init__(self, address: str, factory: ConnectionPool) -> None:
        self.address = address
        """Where it is, fit to be printed."""
        self._factory = factory
        self._free: list[AbstractConnection] = []
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._closed = False

    @classmethod
    def at(cls, url: str) -> Link:
        """Return a link to the server at a redis://, rediss:// or unix:// URL. Raises ValueError."""
        factory = ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=None,  # one time-out for a whole pipeline instead of one for each read
            socket_connect_timeout=CONNECT_TIMEOUT,
            retry=Retry(NoBackoff(), 0),
        )
        return cls(shown(url), factory)

    def peer(self, host: str, port: int) -> Link:
        """Return a link to another server of the same cluster, with the same credentials."""
        options = {**self._factory.connection_kwargs, "host": host, "port": port}
        factory = ConnectionPool(connection_class=self._factory.connection_class, **options)
        return Link(f"{host}:{port}", factory)

    async def exchange(
        self, commands: Sequence[Command], *, timeout: float = EXCHANGE_TIMEOUT
    ) -> list[Reply]:
        """Run commands in one round trip; return their replies, error replies included. Raises LinkLost."""
        packed = [_packed(command) for command in commands]
        try:
            async with asyncio.timeout(timeout), self._slots, self._connection() as connection:
                await connection.send_packed_command(packed, check_health=False)
                return [await _reply(connection) for _ in commands]
        except (TimeoutError, OSError, RedisError) as error:
            raise _lost(error, timeout) from error

    async def subscribe(self, channels: Sequence[str]) -> AsyncGenerator[tuple[bytes, bytes] | None, None]:
        """Yield None once the subscription stands, then (channel, payload). Only ends by raising LinkLost.

        A peer that is silent for PING_AFTER seconds is asked, and given up after another PING_AFTER.
        """
        connection = self._factory.make_connection()
        try:
            async with asyncio.timeout(EXCHANGE_TIMEOUT):
                await connection.connect()
                await connection.send_command("SUBSCRIBE", *channels)
                for _ in channels:
                    await connection.read_response(disable_decoding=True)
            yield None
            while True:
                message = await _message(connection)
                if message is not None:
                    yield message
        except (TimeoutError, OSError, RedisError) as error:
            raise _lost(error, PING_AFTER) from error
        finally:
            await connection.disconnect(nowait=True)

    async def close(self) -> None:
        """Close the connections: free ones now, those in use when they are given back. Idempotent."""
        self._closed = True
        while self._free:
            await self._free.pop().disconnect(nowait=True)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AbstractConnection]:
        if self._closed:
            raise OSError("the link is closed")
        connection = self._free.pop() if self._free else self._factory.make_connection()
        try:
            # a server that restarted has closed it: notice here, before a command is lost with it
            if connection.is_connected and await connection.can_read():
                await connection.disconnect(nowait=True)
            if not connection.is_connected:
                await connection.connect()
            yield connection
        except BaseException:
            # replies may be left on it; also when the caller was cancelled
            await connection.disconnect(nowait=True)
            raise
        finally:
            if self._closed:
                await connection.disconnect(nowait=True)
            else:
                self._free.append(connection)


def shown(url: str) -> str:
    """Return a URL as it may be printed: without user, password and options."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _packed(command: Command) -> bytes:
    try:
        return hiredis.pack_command(tuple(command))  # type: ignore[arg-type]
    except UnicodeEncodeError as error:
        raise BadRequest(f"expected text that UTF-8 can carry: {error.reason}") from None


async def _reply(connection: AbstractConnection) -> Reply:
    try:
        return await connection.read_response(disable_decoding=True)
    except ResponseError as error:
        return error


async def _message(connection: AbstractConnection) -> tuple[bytes, bytes] | None:
    received = await connection.read_response(disable_decoding=True, timeout=PING_AFTER)
    if received is None:
        await connection.send_command("PING", check_health=False)
        received = await connection.read_response(disable_decoding=True, timeout=PING_AFTER)
        if received is None:
            raise TimeoutError
    return (received[1], received[2]) if received[0] == b"message" else None


def _lost(error: Exception, seconds: float) -> LinkLost:
    if isinstance(error, TimeoutError):
        return LinkLost(f"no answer within {seconds:g} s")
    return LinkLost(" ".join(str(error).split())[:200] or type(error).__name__)
