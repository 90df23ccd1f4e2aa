"""The handshake that is not parsed twice answers as the `websockets` package does to the same head as bytes."""

from __future__ import annotations

import asyncio
import gc
import json
from contextlib import contextmanager

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.http11 import Request
from websockets.server import ServerProtocol

from chatserver.transports import websocket_connection
from chatserver.transports.frame_socket import FrameSocket
from chatserver.transports.heartbeat import Heartbeat
from chatserver.transports.lanes import Lanes
from chatserver.transports.websocket import Connection
from chatserver.transports.websocket_connection import WebSocketConnection
from chatserver.transports.websocket_frames import Frames
from chatserver.transports.websocket_handshake import answer_to, scope_of, switching
from chatserver.transports.websocket_inbox import Inbox
from tests.chatserver.transports.test_connections import dial, echo, echoing, rest_of, web

__all__ = ["web"]

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
SOUND = (
    (b"host", b"localhost"),
    (b"upgrade", b"websocket"),
    (b"connection", b"Upgrade"),
    (b"sec-websocket-key", KEY),
    (b"sec-websocket-version", b"13"),
)
VALUES = {
    b"upgrade": (b"WebSocket", b"h2c", b"websocket, h2c", b""),
    b"connection": (b"keep-alive, Upgrade", b"keep-alive,upgrade", b"close", b"up grade", b"Upgrade;", b""),
    b"sec-websocket-key": (KEY[:-2], KEY + b"=", b"dGhlIHNhbXBsZSBub25jZR==", b"\xe9" * 24, b""),
    b"sec-websocket-version": (b"8", b"13, 8", b"013", b""),
    b"sec-websocket-protocol": (b"chat", b"a, b", b"a b", b"\x00", b""),
    b"origin": (b"http://localhost", b"null"),
    b"sec-websocket-extensions": (b"permessage-deflate", b";;"),
    b"cookie": (b"a=\xe9",),
}
CHANGES = st.sampled_from([(name, value) for name, values in VALUES.items() for value in values] + [*SOUND])


@st.composite
def heads(draw):
    """A sound handshake with headers replaced, added or left out."""
    headers = list(SOUND)
    for name, value in draw(st.lists(CHANGES, max_size=2)):
        at = next((i for i, pair in enumerate(headers) if pair[0] == name), None)
        if at is not None and draw(st.booleans()):
            headers[at] = (name, value)
        else:
            headers.insert(draw(st.integers(0, len(headers))), (name, value))
    for _ in range(draw(st.sampled_from([0, 0, 1]))):
        headers.pop(draw(st.integers(0, len(headers) - 1)))
    return draw(st.sampled_from(["GET", "GET", "GET", "POST"])), headers


@given(head=heads())
def test_the_answer_is_that_of_the_package(head):
    """To whatever comes: the same value is accepted, the rest is refused with the same status and words."""
    method, headers = head
    package = ServerProtocol()
    lines = [f"{method} /v1/responses?a=b HTTP/1.1".encode(), *(b"%b: %b" % pair for pair in headers)]
    package.receive_data(b"\r\n".join([*lines, b"", b""]))
    events = package.events_received()
    if not events:
        return  # what HTTP has not parsed does not come here
    assert isinstance(events[0], Request)
    expected, answer = package.accept(events[0]), answer_to(method, "1.1", b"/v1/responses?a=b", headers)
    if expected.status_code == 101:
        assert answer == expected.headers["Sec-WebSocket-Accept"]
    else:
        assert (answer.status_code, answer.body) == (expected.status_code, expected.body)


def test_the_example_of_the_specification():
    """RFC 6455, section 1.3."""
    accept = answer_to("GET", "1.1", b"/chat", SOUND)
    assert accept == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    head = switching(accept, "chat", [(b"x-limit", b"5")])
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n") and head.endswith(b"\r\n\r\n")
    assert b"\r\nSec-WebSocket-Protocol: chat\r\n" in head and b"\r\nx-limit: 5\r\n" in head


def test_the_scope_has_path_query_and_all_that_is_offered():
    """Also where subprotocols come in two headers, and the path is quoted."""
    headers = [*SOUND, (b"sec-websocket-protocol", b"a, b"), (b"sec-websocket-protocol", b"c")]
    http = {"type": "http", "scheme": "https", "root_path": "/base", "headers": headers, "state": {}}
    scope = scope_of(http, b"/v1/a%20b?x=1?2")
    assert (scope["type"], scope["scheme"]) == ("websocket", "wss")
    assert (scope["path"], scope["raw_path"]) == ("/base/v1/a b", b"/base/v1/a%20b")
    assert (scope["query_string"], scope["subprotocols"]) == (b"x=1?2", ["a", "b", "c"])


HANDSHAKE = b"\r\n".join([b"GET %b HTTP/1.1", *(b"%b: %b" % pair for pair in SOUND), b"", b""])


@pytest.mark.parametrize("before", [b"", b"GET /readyz?wait=1 HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2])
async def test_a_handshake_is_taken_by_itself(web, before):
    """Amid an answer to an earlier request there is no place for another protocol, nor is a target that is no ASCII."""
    path = b"/v1/responses" if before else b"/v1/\xc3\xa9"
    reader, writer = await dial(web)
    writer.write(before + HANDSHAKE % path)
    assert b" 101 " not in await rest_of(reader)
    writer.close()


async def test_a_handshake_may_follow_an_answer(web):
    """On the same connection."""
    reader, writer = await dial(web)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b" 200 " in await reader.readuntil(b"}")
    writer.write(HANDSHAKE % b"/v1/responses")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    writer.write(b"\x81\x82\0\0\0\0{}")
    assert (await reader.readexactly(1)) == b"\x81"
    writer.close()


async def test_who_does_not_answer_a_close_is_not_waited_for(web, monkeypatch):
    """The page of another site is told so and closed; whether it says goodbye or not."""
    monkeypatch.setattr(websocket_connection, "CLOSE_WITHIN", 0.2)
    reader, writer = await dial(web)
    writer.write((HANDSHAKE % b"/v1/responses")[:-2] + b"Origin: http://evil.example\r\n\r\n")
    async with asyncio.timeout(30):
        assert (4503).to_bytes(2) in await rest_of(reader)
    writer.close()


async def test_who_reads_nothing_is_not_waited_for(monkeypatch):
    """What is left for a client that does not read keeps its connection for CLOSE_WITHIN at most."""
    monkeypatch.setattr(websocket_connection, "CLOSE_WITHIN", 0.2)

    async def serve(scope, receive, send):
        if scope["type"] == "lifespan":
            await echo(scope, receive, send)
            return
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": bytes(2**26)})

    async with echoing(app=serve) as address, asyncio.timeout(30):
        port = int(address.partition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
        writer.write(HANDSHAKE % b"/")
        await reader.readuntil(b"\r\n\r\n")
        while any(one.laddr[1] == port and one.raddr for one in psutil.Process().net_connections("tcp")):
            await asyncio.sleep(0.05)
        writer.transport.abort()


async def test_an_application_that_fails_or_says_nothing_ends_its_connection(caplog):
    """500 before the handshake is over, and a line in the log if it failed."""

    async def serve(scope, receive, send):
        if scope["type"] == "lifespan":
            await echo(scope, receive, send)
        elif scope["path"] == "/fails":
            raise ValueError("a fault")

    async with echoing(app=serve) as address:
        host, _, port = address.partition(":")
        for path, lines in ((b"/fails", 1), (b"/says-nothing", 0)):
            caplog.clear()
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(HANDSHAKE % path)
            assert (await rest_of(reader)).startswith(b"HTTP/1.1 500 ")
            assert len([record for record in caplog.records if record.exc_info]) == lines
            writer.close()


@contextmanager
def uncollected():
    """No garbage collection; yields a function that counts what is alive of WebSockets."""
    kinds = (WebSocketConnection, Frames, Inbox, Heartbeat, FrameSocket, Connection, Lanes)

    def alive() -> int:
        return sum(type(one) in kinds for one in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        yield alive
    finally:
        gc.enable()


async def test_a_connection_that_has_ended_waits_for_no_garbage_collector(web):
    """Whoever hung up: of 200 at once, what is in cycles took a twentieth of the time of all of them."""
    url = web.url.replace("http", "ws") + "/v1/responses"
    with uncollected() as alive:
        before = alive()
        for closes in (True, False, True, False):
            async with connect(url) as client:
                await client.send(
                    b'{"type": "response.create", "model": "tiny", "input": "Hello"}', text=True
                )
                while json.loads(await client.recv())["type"] != "response.completed":
                    pass
                if not closes:
                    client.transport.abort()
        async with asyncio.timeout(30):
            while alive() > before:
                await asyncio.sleep(0.05)
