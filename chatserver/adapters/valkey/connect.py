"""One server: a connection that all share, some for steps that wait, subscriptions.

redis-py makes the connections (URL, TLS, authentication); a pipeline is packed by hiredis in one go
and its replies are read as they are. Error replies are values here, for the client to sort out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from urllib.parse import urlsplit

import hiredis
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from chatserver.adapters.valkey.pipe import CLOSED, LinkLost, Pipe, Reply, Taken
from chatserver.adapters.valkey.scripts import Command
from chatserver.adapters.valkey.subscription import Subscription
from chatserver.errors import BadRequest

CONNECTIONS = 32
"""Bound on the connections of one process to one server for steps that wait there; callers past it wait, too."""
CONNECT_TIMEOUT = 3.0
EXCHANGE_TIMEOUT = 8.0
"""Seconds for a whole pipeline, waiting for a connection included."""
BACK_OFF = (0.01, 1.0)
"""First and longest pause before the shared connection is opened again where the last one never answered, seconds."""
PING_AFTER = 4.0
"""Seconds of silence on a subscription after which the peer is asked, and then given for its answer."""


class Link:
    """One server. Safe for concurrent use within one event loop."""

    def __init__(self, address: str, factory: ConnectionPool) -> None:
        self.address = address
        """Where it is, fit to be printed."""
        self._factory = factory
        self._shared: Pipe | None = None
        self._opening: asyncio.Task[None] | None = None
        self._pause = 0.0
        self._free: list[Pipe] = []
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
            driver_info=None,  # redis-py would read its own version from the disk for each connection: 2 ms
        )
        return cls(shown(url), factory)

    def peer(self, host: str, port: int) -> Link:
        """Return a link to another server of the same cluster, with the same credentials."""
        options = {**self._factory.connection_kwargs, "host": host, "port": port}
        factory = ConnectionPool(connection_class=self._factory.connection_class, **options)
        return Link(f"{host}:{port}", factory)

    async def exchange(
        self, commands: Sequence[Command], *, alone: bool = False, timeout: float = EXCHANGE_TIMEOUT
    ) -> list[Reply]:
        """Run commands in one round trip; return their replies, error replies included. Raises LinkLost.

        `alone`: they may wait at the server, so nobody else's should stand behind them. A caller may be cancelled.
        """
        packed = b"".join([_packed(command) for command in commands])
        try:
            if alone:
                async with asyncio.timeout(timeout), self._slots:
                    return await self._alone(packed, len(commands), timeout)
            pipe = self._shared
            if pipe is None or pipe.ended or pipe.full:
                async with asyncio.timeout(timeout):
                    pipe = await self._roomy()
                    return await pipe.ask(packed, len(commands), timeout)
            return await pipe.ask(packed, len(commands), timeout)
        except (TimeoutError, OSError, RedisError) as error:
            raise _lost(error, timeout) from error

    async def subscribe(self, channels: Sequence[str]) -> AsyncGenerator[tuple[bytes, bytes] | None, None]:
        """Yield None once the subscription stands, then (channel, payload). Only ends by raising LinkLost.

        A peer that is silent for PING_AFTER seconds is asked, and given up after another PING_AFTER.
        """
        try:
            taken = await self._connected()
        except (TimeoutError, OSError, RedisError) as error:
            raise _lost(error, EXCHANGE_TIMEOUT) from error
        subscription = Subscription(taken, channels, PING_AFTER)
        try:
            await subscription.stands()
            yield None
            while True:
                yield await subscription.next()
        finally:
            subscription.close()

    async def close(self) -> None:
        """Close the connections. Idempotent."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
        for pipe in (*self._free, *([self._shared] if self._shared else ())):
            pipe.close()
        self._free.clear()

    async def _roomy(self) -> Pipe:
        """Return the shared connection once it takes another exchange; open it if there is none."""
        while True:
            pipe = self._shared
            if pipe is None or pipe.ended:
                await self._opened()
            elif pipe.full:
                await pipe.room()
            else:
                return pipe

    async def _opened(self) -> None:
        """Return when the connection that all share was opened: all wait for the same one. Raises what that raises."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._share())
            self._opening.add_done_callback(_seen)
        opening = self._opening
        await asyncio.wait((opening,))  # whoever is cancelled here does not end it for the others
        if opening.cancelled():
            raise OSError("the link was closed")
        opening.result()
        if self._shared is None or self._shared.ended:
            raise OSError(CLOSED)

    async def _share(self) -> None:
        """Open it; a little later each time while it ends before it has answered anything."""
        try:
            failed = self._shared is not None and not self._shared.heard
            self._pause = min(max(2 * self._pause, BACK_OFF[0]), BACK_OFF[1]) if failed else 0.0
            await asyncio.sleep(self._pause)
            self._shared = await self._open()
        finally:
            self._opening = None

    async def _alone(self, packed: bytes, count: int, timeout: float) -> list[Reply]:
        while self._free and self._free[-1].ended:
            self._free.pop()
        pipe = self._free.pop() if self._free else await self._open()
        if pipe.ended:
            raise OSError(CLOSED)
        try:
            replies = await pipe.ask(packed, count, timeout)
        except BaseException:
            pipe.close()  # replies may be left on it; also when the caller was cancelled
            raise
        if self._closed:
            pipe.close()
        else:
            self._free.append(pipe)
        return replies

    async def _open(self) -> Pipe:
        if self._closed:
            raise OSError("the link is closed")
        return Pipe(await self._connected())

    async def _connected(self) -> Taken:
        connection = self._factory.make_connection()
        try:
            async with asyncio.timeout(EXCHANGE_TIMEOUT):
                await connection.connect()
            return Taken(connection)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise


def shown(url: str) -> str:
    """Return a URL as it may be printed: without user, password and options."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _seen(opening: asyncio.Task[None]) -> None:
    """Have nobody told of an error that nobody waits for any more."""
    if not opening.cancelled():
        opening.exception()


def _packed(command: Command) -> bytes:
    try:
        return hiredis.pack_command(tuple(command))  # type: ignore[arg-type]
    except UnicodeEncodeError as error:
        raise BadRequest(f"expected text that UTF-8 can carry: {error.reason}") from None


def _lost(error: Exception, seconds: float) -> LinkLost:
    if isinstance(error, TimeoutError):
        return LinkLost(f"no answer within {seconds:g} s")
    return LinkLost(" ".join(str(error).split())[:200] or type(error).__name__)
