"""A body that is sent as it comes: slices, pings in silence, clients that go or do not read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from chatserver.errors import ChatServerError
from chatserver.transports import sse
from chatserver.transports.sending import SLICE, Sending


class Client:
    """An ASGI server's side: keeps what is sent, reads only while `reads` is set."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.ended = False
        self.reads = asyncio.Event()
        self.reads.set()
        self.goes: Callable[[], object] | None = None
        """Call it, and the client has gone."""

    @property
    def clogged(self) -> bool:
        return not self.reads.is_set()

    def when_lost(self, call: Callable[[], object] | None) -> None:
        self.goes = call

    async def send(self, message) -> None:
        await self.reads.wait()
        if message["type"] == "http.response.body":
            self.bodies.append(message["body"])
            if not message["more_body"]:
                self.ended = True


async def parts(*sent: bytes, wait: asyncio.Event | None = None) -> AsyncIterator[bytes]:
    for part in sent:
        yield part
    if wait is not None:
        await wait.wait()


async def send(
    client: Client, body: AsyncIterator[bytes], *, ping: float = 60.0, timeout: float = 60.0
) -> None:
    sending = Sending(client, client.send, ping=ping, timeout=timeout)
    try:
        await sending.run(body)
    finally:
        sending.close()


async def test_all_of_it_in_slices_and_the_end():
    client, long = Client(), bytes(2 * SLICE + 1)
    await send(client, parts(b"one", long))
    assert client.ended and b"".join(client.bodies) == b"one" + long
    assert max(map(len, client.bodies)) == SLICE


async def test_silence_is_pinged_and_what_is_being_sent_is_not():
    client, wait = Client(), asyncio.Event()
    sending = asyncio.create_task(send(client, parts(b"one", wait=wait), ping=0.02))
    async with asyncio.timeout(60):
        while client.bodies.count(b": ping\n") < 3:
            await asyncio.sleep(0.005)
        client.reads.clear()
        before = list(client.bodies)
        wait.set()  # the end waits for the client, and pings wait for the end
        await asyncio.sleep(0.1)
        client.reads.set()
        await sending
    # one ping may have been on its way when the client stopped reading
    assert [body for body in client.bodies[len(before) :] if body] in ([], [b": ping\n"])
    assert client.ended


async def test_a_client_that_goes_ends_it():
    client = Client()
    sending = asyncio.create_task(send(client, parts(b"one", wait=asyncio.Event())))
    while client.bodies != [b"one"]:
        await asyncio.sleep(0)
    assert client.goes is not None
    client.goes()
    await asyncio.wait_for(sending, 60)
    assert not client.ended and not sending.cancelled() and client.goes is None


async def test_a_client_that_went_before_the_first_part_ends_it():
    class Gone(Client):
        def when_lost(self, call: Callable[[], object] | None) -> None:
            if call is not None:
                call()

    client = Gone()
    sending = asyncio.create_task(send(client, parts(wait=asyncio.Event())))
    await asyncio.wait_for(sending, 60)
    assert not client.ended and not sending.cancelled()


async def test_a_client_that_does_not_read_is_given_up():
    client = Client()
    client.reads.clear()
    with pytest.raises(TimeoutError, match=r"nothing was read for 0\.05 s"):
        await asyncio.wait_for(send(client, parts(b"one"), timeout=0.05), 60)


async def test_the_task_can_be_cancelled_from_outside():
    client = Client()
    sending = asyncio.create_task(send(client, parts(wait=asyncio.Event())))
    await asyncio.sleep(0.01)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending


class Source:
    """A reader that keeps whether it was closed."""

    closed = False

    async def aclose(self) -> None:
        self.closed = True

    def dismiss(self, error: ChatServerError) -> None:
        raise AssertionError("nobody's key ends here")


async def test_an_answer_that_cannot_begin_is_given_up(monkeypatch):
    """A client that sent two requests and reads nothing of the first one's answer holds no reader for the second."""
    monkeypatch.setattr(sse, "SEND_TIMEOUT", 0.05)
    client, source = Client(), Source()
    client.reads.clear()
    stream = sse.EventStream(source, parts(b"one"), ticket=None)
    begun = asyncio.create_task(stream({"type": "http", sse.CONNECTION: client}, None, client.send))
    await asyncio.wait({begun}, timeout=60)
    assert isinstance(begun.exception(), TimeoutError)
    assert source.closed and not client.bodies
