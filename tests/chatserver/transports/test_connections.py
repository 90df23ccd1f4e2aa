"""What a connection may cost: Autobahn's cases, slow and large heads, floods, idle sockets, too many of them."""

from __future__ import annotations

import asyncio
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import kosoku
import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from chatserver.service.supervision.listening import RECEIVE_BUFFER, SEND_BUFFER, listen
from chatserver.settings import Settings
from chatserver.transports import connections, websocket_inbox
from chatserver.transports.connections import ServerConfig
from tests.chatserver.transports.conftest import running_web
from tests.chatserver.transports.test_websocket import receive, send, socket_to, until
from tests.fakes import MODEL, MemoryStore

AUTOBAHN_BODY = 64 * 1024 * 1024
CONFORMING = {"OK", "NON-STRICT", "INFORMATIONAL"}
"""What the Autobahn suite says of a case that was passed."""
LATE = 6
"""Cases, two at a time, that a machine which stands still may make late; more of them are the server's fault."""


async def echo(scope, receive, send) -> None:
    """An application that sends back what comes."""
    message = await receive()
    if scope["type"] == "lifespan":
        while message["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
            message = await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        kind = "text" if message.get("text") is not None else "bytes"
        await send({"type": "websocket.send", kind: message[kind]})


@asynccontextmanager
async def echoing(app=echo, **changes):
    """The echo, or another application, behind our protocols; yields host:port."""
    settings = Settings(port=0, **changes)
    listener = listen(settings)
    server = uvicorn.Server(ServerConfig(app, settings))
    serving = asyncio.create_task(server._serve([listener]))
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


@pytest.fixture
async def web():
    """A web role in memory."""
    store = MemoryStore()
    store.known_models.append(MODEL)
    async with running_web(store) as web:
        yield web


async def dial(web):
    """A raw connection."""
    return await asyncio.open_connection("127.0.0.1", int(web.url.rpartition(":")[2]))


async def rest_of(reader) -> bytes:
    """All that comes until the server closes."""
    async with asyncio.timeout(60):
        return await reader.read()


@pytest.mark.parametrize(
    ("group", "cases"), [("[1-5].*", 64), ("6.*", 145), ("7.*", 37), ("9.*", 54), ("10.*", 1)]
)
async def test_autobahn(group, cases, monkeypatch):
    """Every case of the Autobahn suite, 301, but the compression ones, which no client is offered."""
    monkeypatch.setattr(websocket_inbox, "RATE", 1e6)
    async with echoing(max_body=AUTOBAHN_BODY) as address:
        found = await behaviors(address, [group])
        for _ in range(2):  # it waits for one second, also on a machine that stands still for two
            late = [case for case, behavior in found.items() if behavior not in CONFORMING]
            assert len(late) <= LATE, found
            if late:
                found |= await behaviors(address, late)
    assert len(found) == cases and set(found.values()) <= CONFORMING, found


async def behaviors(address: str, cases: list[str]) -> dict[str, str]:
    """Run some of its cases; return what it says of each."""
    try:
        results = await kosoku.run_fuzzingclient(f"ws://{address}", cases, concurrency=2)
    except kosoku.FailureError as failed:
        results = failed.results
    return {result.case_id: result.behavior.value for result in results}


async def send_slowly(web, start: bytes) -> bytes | None:
    """Send a head that never ends; return the answer, None if a reset overtook it: more came after the end."""
    reader, writer = await dial(web)
    try:
        writer.write(start)
        reading = asyncio.create_task(rest_of(reader))
        while not reading.done():
            writer.write(b"x-more: 1\r\n")
            await asyncio.sleep(0.05)
        return await reading
    except ConnectionResetError:
        return None
    finally:
        writer.close()


async def test_a_slow_head_is_cut_off(web, monkeypatch):
    """Slowloris: a header every now and then does not keep a connection, whatever it wants to become."""
    monkeypatch.setattr(connections, "HEAD_TIMEOUT", 0.3)
    for upgrade in (b"", b"Upgrade: websocket\r\nConnection: Upgrade\r\n"):
        answer = None
        async with asyncio.timeout(60):
            while answer is None:
                answer = await send_slowly(web, b"GET /v1/responses HTTP/1.1\r\n" + upgrade)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ") and b"within 0.3 s" in body
        assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
    reader, writer = await dial(web)
    assert await rest_of(reader) == b""  # who says nothing is told nothing
    writer.close()


async def test_the_deadline_holds_for_every_request_of_a_connection(web, monkeypatch):
    """Empty lines after an answer keep nothing open, either."""
    monkeypatch.setattr(connections, "HEAD_TIMEOUT", 0.3)
    reader, writer = await dial(web)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
    reading = asyncio.create_task(rest_of(reader))
    async with asyncio.timeout(60):
        while not reading.done():
            writer.write(b"\r\n")
            await asyncio.sleep(0.05)
    writer.close()


async def test_a_head_is_bounded(web):
    """64 KiB of headers are refused, in one field or in many."""
    for filler in (b"x: " + b"y" * 70_000 + b"\r\n", b"x-a: b\r\n" * 9000):
        reader, writer = await dial(web)
        writer.write(b"GET /livez HTTP/1.1\r\n" + filler)
        assert (await rest_of(reader)).startswith(b"HTTP/1.1 431 ")
        writer.close()


async def test_what_is_not_http_is_refused_in_words(web):
    """Garbage gets the usual error body."""
    reader, writer = await dial(web)
    writer.write(b"hello there\r\n\r\n")
    head, _, body = (await rest_of(reader)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ") and json.loads(body)["error"]["type"] == "invalid_request_error"
    writer.close()


async def test_requests_ahead_of_their_answers_are_bounded(web):
    """A few pipelined requests are answered; thousands are not kept."""
    one = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    reader, writer = await dial(web)
    writer.write(one * 5)
    for _ in range(5):
        assert (await reader.readuntil(b"}")).count(b"HTTP/1.1 200") == 1
    writer.write(one * 2000)
    with pytest.raises(ConnectionError):
        assert (await rest_of(reader)).count(b"HTTP/1.1 200") < 100
        raise ConnectionError("closed")
    writer.close()


async def test_connections_are_bounded():
    """One more than the bound is told when to come back."""
    store = MemoryStore()
    async with running_web(store, max_connections=3) as web:
        kept = [await dial(web) for _ in range(3)]
        await asyncio.sleep(0.05)
        reader, writer = await dial(web)
        refusal = await rest_of(reader)
        assert refusal.startswith(b"HTTP/1.1 503 ") and b"\r\nretry-after: 5\r\n" in refusal
        writer.close()
        kept.pop()[1].close()
        async with web.http() as client, asyncio.timeout(60):
            while (await client.get("/livez")).status_code != 200:
                await asyncio.sleep(0.01)
        for _, writer in kept:
            writer.close()


async def test_pings_of_a_client_that_reads_nothing_are_not_answered_for_ever(web):
    """The answers to pings fill the buffers once; then nothing more is read from that client."""
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    narrow.connect(("127.0.0.1", int(web.url.rpartition(":")[2])))
    reader, writer = await asyncio.open_connection(sock=narrow, limit=4096)
    writer.write(
        b"GET /v1/responses HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    reader._transport.pause_reading()
    ping = b"\x89\xfd" + b"\0\0\0\0" + b"p" * 125
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < 64 * 1024 * 1024:
            writer.write(ping * 500)
            sent += 500 * len(ping)
            async with asyncio.timeout(2):
                await writer.drain()
    assert sent < 16 * 1024 * 1024
    writer.transport.abort()


async def test_a_flood_of_frames_is_slowed_down(web, monkeypatch):
    """Past the burst, frames are read at the rate; none is lost and none is answered with an error."""
    monkeypatch.setattr(websocket_inbox, "RATE", 100.0)
    monkeypatch.setattr(websocket_inbox, "BURST", 10.0)
    loop = asyncio.get_running_loop()
    async with socket_to(web) as client:
        started = loop.time()
        for _ in range(60):
            await send(client, type="auth", token="any")
            assert await receive(client) == {"type": "auth.accepted"}
        assert loop.time() - started > 0.45


@pytest.mark.parametrize(
    ("flood", "last"),
    [(b"\x8a\x80\0\0\0\0", b"\x81"), (b"\x01\x80\0\0\0\0" + b"\0\x80\0\0\0\0" * 60, b"\x80")],
    ids=["pongs", "empty parts of a message"],
)
async def test_frames_that_bring_nothing_are_slowed_down_as_well(web, monkeypatch, flood, last):
    """Whoever sends them as fast as the network goes must not have this process do nothing else."""
    monkeypatch.setattr(websocket_inbox, "RATE", 100.0)
    monkeypatch.setattr(websocket_inbox, "BURST", 10.0)
    loop = asyncio.get_running_loop()
    async with socket_to(web) as client:
        started = loop.time()
        client.transport.write(flood * (60 if len(flood) < 60 else 1))
        await asyncio.sleep(0.05)
        text = b'{"type":"auth","token":"any"}'
        client.transport.write(last + bytes([0x80 + len(text)]) + b"\0\0\0\0" + text)
        assert await receive(client) == {"type": "auth.accepted"}
        assert loop.time() - started > 0.45


async def test_more_frames_at_once_than_anybody_needs_end_the_connection(web):
    """Thousands of frames in one go are not kept in memory."""
    async with socket_to(web) as client:
        web.store.down = True
        flood = b"\x81\x82\0\0\0\0{}" * 20_000
        client.transport.write(flood)
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await receive(client)
    assert closed.value.rcvd is None or closed.value.rcvd.code in (1008, 4500)


async def test_an_idle_socket_is_closed_and_a_busy_one_is_not():
    """Silence counts only while no answer is in progress."""
    store = MemoryStore()
    store.known_models.append(MODEL)
    async with running_web(store, idle=1.0) as web:
        web.engine.write.clear()
        async with socket_to(web) as client:
            await send(client, type="response.create", model="tiny", input="Hello")
            await until(client, "response.output_text.delta")
            await asyncio.sleep(1.5)
            web.engine.write.set()
            await until(client, "response.completed")
            assert (await receive(client))["error"]["code"] == "idle"
            with pytest.raises(ConnectionClosed) as closed:
                await receive(client)
    assert closed.value.rcvd.code == 4408


async def test_who_does_not_answer_pings_is_closed_and_who_does_stays(monkeypatch):
    """A client that is gone without a word is noticed; one that only says nothing is not disturbed."""
    monkeypatch.setattr(connections, "PING", 0.1)
    monkeypatch.setattr(
        connections, "PONG_WITHIN", 1.5
    )  # less, and a machine that is held up answers too late
    async with echoing() as address, connect(f"ws://{address}") as silent:
        host, _, port = address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        async with asyncio.timeout(60):
            assert (await reader.readexactly(6))[0] == 0x89
            opcode = 0x89
            while opcode == 0x89:
                opcode, length = await reader.readexactly(2)
                said = await reader.readexactly(length)
        assert (opcode, int.from_bytes(said[:2])) == (0x88, 1011)
        writer.close()
        await silent.send("still here")
        assert await silent.recv() == "still here"


def test_the_kernel_keeps_little_for_a_client_that_does_not_read_or_is_not_read():
    """Accepted sockets inherit the bounds, and keep them however much was sent before."""
    much = bytes(2**26)
    with listen(Settings(port=0)) as listener, socket.socket() as client, ThreadPoolExecutor(1) as beside:
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            sending = beside.submit(client.sendall, much)
            read = 0
            while read < len(much):
                read += len(accepted.recv(2**20))
            sending.result()
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * SEND_BUFFER
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) <= 2 * RECEIVE_BUFFER


async def test_what_is_no_utf_8_ends_the_connection_in_one_line_of_the_log(web, caplog):
    """1007, whole or in parts; a character that two parts share is none of that."""
    caplog.set_level("INFO")
    for sent in (b'{"type": "\xff"}', [b'{"type": "', b"\xc3", b'"}']):
        async with socket_to(web) as connection:
            caplog.clear()
            await connection.send(sent, text=True)
            with pytest.raises(ConnectionClosed) as closed:
                await receive(connection)
            assert closed.value.rcvd.code == 1007
            async with asyncio.timeout(60):
                while not (told := [record for record in caplog.records if "UTF-8" in record.getMessage()]):
                    await asyncio.sleep(0.01)
            assert len(told) == 1 and not any(record.exc_info for record in caplog.records)
    async with socket_to(web) as connection:
        await connection.send([b'{"type": "\xc3', b'\xa9"}'], text=True)
        assert (await receive(connection))["error"]["param"] == "type"


async def test_a_client_that_asks_before_it_sends_the_body_is_told_to(web):
    """`Expect: 100-continue`, as curl asks for bodies above 1 MiB; on the next request of a connection, too."""
    reader, writer = await dial(web)
    for body in (b"{}", b'{"input": 5}'):
        writer.write(b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n" % len(body))
        async with asyncio.timeout(60):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(body)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
            assert json.loads(await reader.readuntil(b"}}"))["error"]["param"] == "input"
    writer.close()
