"""Links to servers that misbehave: silent ones, ones that close at once, more than a reader can take."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import UnixDomainSocketConnection

from chatserver.adapters.valkey import connect as links
from chatserver.adapters.valkey import pipe as pipes
from chatserver.adapters.valkey import subscription as subscriptions
from chatserver.adapters.valkey.connect import Link, LinkLost

Answers = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def linked(answers: Answers) -> AsyncIterator[Link]:
    """A link to a server that does this with each connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answers(reader, writer)
        finally:
            writer.close()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "socket")
        async with await asyncio.start_unix_server(serve, path):
            link = Link.at(f"unix://{path}")
            try:
                yield link
            finally:
                await link.close()


async def _silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    while await reader.read(2**16):
        pass


async def test_a_silent_server_is_given_up_whoever_still_waits() -> None:
    """Also where all who asked had less patience and have gone: else nobody ever asks on another connection."""
    async with linked(_silent) as link:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await link.exchange([("PING",)], timeout=1.5)
        pipe = link._shared
        assert pipe is not None and not pipe.ended
        async with asyncio.timeout(60):
            while not pipe.ended:
                await asyncio.sleep(0.01)


async def test_waiting_for_a_place_is_part_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "MAX_ASKED", 1)
    loop = asyncio.get_running_loop()
    async with linked(_silent) as link:
        began = loop.time()
        first = asyncio.ensure_future(link.exchange([("PING",)], timeout=120))
        while link._shared is None or not link._shared.full:
            await asyncio.sleep(0)
        with pytest.raises(LinkLost, match=r"within 0\.5 s"):
            await link.exchange([("PING",)], timeout=0.5)
        assert loop.time() - began < 60
        assert not first.done()
        first.cancel()


async def test_a_server_that_closes_at_once_is_tried_less_and_less_often() -> None:
    """Each call says at once what happened, and the next one does not open a connection as fast as it can."""
    opened = 0

    async def close(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1

    async with linked(close) as link:
        loop = asyncio.get_running_loop()
        until = loop.time() + 0.5
        while loop.time() < until or opened < 3:
            with pytest.raises(LinkLost, match=r"closed the connection|reset by peer|Broken pipe"):
                await link.exchange([("PING",)])
        assert 2 < opened < 12


async def test_a_connection_that_ends_as_it_is_opened_is_lost_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its end was told to redis-py and to nobody else: who asked on it would wait for the whole of its time."""
    connect = UnixDomainSocketConnection.connect
    opened = 0

    async def connect_slowly(connection: UnixDomainSocketConnection) -> None:
        nonlocal opened
        opened += 1
        await connect(connection)
        assert connection._reader is not None
        while not connection._reader.at_eof():
            await asyncio.sleep(0.001)

    async def close(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None: ...

    monkeypatch.setattr(UnixDomainSocketConnection, "connect", connect_slowly)
    async with linked(close) as link, asyncio.timeout(60):
        for asking in (link.exchange([("PING",)], alone=True), anext(link.subscribe(["c"]))):
            with pytest.raises(LinkLost, match="closed the connection"):
                await asking
        began, opened = asyncio.get_running_loop().time(), 0
        for _ in range(6):
            with pytest.raises(LinkLost, match="closed the connection"):
                await link.exchange([("PING",)])
        assert opened == 6 and asyncio.get_running_loop().time() - began > 0.3, "as fast as it can"


async def test_who_waits_for_a_connection_is_told_that_the_link_was_closed() -> None:
    """Not cancelled: nobody has cancelled it."""
    async with linked(_silent) as link:
        asking = asyncio.ensure_future(link.exchange([("PING",)]))
        while link._opening is None:
            await asyncio.sleep(0)
        await link.close()
        with pytest.raises(LinkLost, match="closed"):
            await asking


async def test_a_subscription_that_is_not_read_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """While its reader has more than enough nothing is taken from the peer, who only seems to be silent."""
    monkeypatch.setattr(links, "PING_AFTER", 0.05)
    monkeypatch.setattr(subscriptions, "MAX_WAITING", 2)
    read = asyncio.Event()

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"c\r\n")
        message = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\n%d\r\n"
        writer.write(b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n" + b"".join(message % i for i in range(4)))
        await read.wait()
        writer.write(message % 4)
        await reader.read()

    async with linked(send) as link, aclosing(link.subscribe(["c"])) as messages:
        assert await anext(messages) is None
        assert [await anext(messages) for _ in range(4)] == [(b"c", b"%d" % i) for i in range(4)]
        await asyncio.sleep(0.3)
        read.set()
        assert await anext(messages) == (b"c", b"4")
