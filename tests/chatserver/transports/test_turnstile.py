"""A burst of requests begins in order, a few in each turn of the loop."""

from __future__ import annotations

import asyncio

import httpx

from chatserver.transports import connections
from chatserver.transports.turnstile import A_TURN, Turnstile
from tests.chatserver.transports.conftest import running_web
from tests.fakes import MODEL, MemoryStore


async def test_a_burst_is_let_in_in_order_and_a_few_a_turn():
    turnstile, came, turn = Turnstile(), [], 0
    for number in range(5 * A_TURN):
        if turnstile.enter(lambda number=number: came.append((turn, number)) is None):
            came.append((turn, number))
    while len(came) < 5 * A_TURN:
        turn += 1
        await asyncio.sleep(0)
    assert [number for _, number in came] == list(range(5 * A_TURN))
    turns = [turn for turn, _ in came]
    assert all(turns.count(turn) == A_TURN for turn in turns)
    for _ in range(2):
        await asyncio.sleep(0)
    assert turnstile.enter(lambda: True)  # whoever comes behind a burst that is over waits for nobody


async def test_who_has_gone_takes_nobodys_turn():
    """However many: else a thousand clients that leave would hold up who comes behind them as if they had stayed."""
    turnstile, came = Turnstile(), []
    for _ in range(A_TURN):
        assert turnstile.enter(lambda: True)
    for number in range(3):
        for _ in range(20 * A_TURN):
            assert not turnstile.enter(lambda: False)
        assert not turnstile.enter(lambda number=number: came.append(number) is None)
    await asyncio.sleep(0)
    assert came == [0, 1, 2]
    for _ in range(2):
        await asyncio.sleep(0)
    assert turnstile.enter(lambda: True)


async def test_one_that_fails_holds_up_nobody():
    turnstile, came = Turnstile(), []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: came.append(str(context["exception"]))
    )
    for _ in range(A_TURN):
        assert turnstile.enter(lambda: True)
    assert not turnstile.enter(lambda: {}["gone"])
    assert not turnstile.enter(lambda: came.append("next") is None)
    for _ in range(3):
        await asyncio.sleep(0)
    assert came == ["'gone'", "next"]


async def test_a_burst_of_requests_is_answered_some_of_them_by_clients_that_leave():
    """Heads that come in parts, and clients that are gone when it is their turn."""
    store = MemoryStore()
    store.known_models.append(MODEL)
    async with running_web(store) as web, httpx.AsyncClient(base_url=web.url, timeout=30) as client:
        port = int(web.url.rpartition(":")[2])
        gone = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2 * A_TURN)]
        for number, (_, writer) in enumerate(gone):
            writer.write(b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"[: 20 if number % 2 else None])
        asked = [asyncio.create_task(client.get("/v1/models")) for _ in range(5 * A_TURN)]
        for _, writer in gone:
            writer.transport.abort()
        answers = await asyncio.gather(*asked)
        assert {answer.status_code for answer in answers} == {200}


async def test_who_waits_for_its_turn_is_not_given_up(monkeypatch):
    """It has sent its part: neither the time for a head nor the time for another request runs meanwhile."""
    monkeypatch.setattr(connections, "HEAD_TIMEOUT", 0.2)
    monkeypatch.setattr(connections, "KEEP_ALIVE", 0.2)
    waiting = []
    monkeypatch.setattr(Turnstile, "enter", lambda _, begin: bool(waiting.append(begin)))
    async with running_web(MemoryStore()) as web:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(web.url.rpartition(":")[2]))
        for _ in range(2):
            writer.write(b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            while not waiting:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.5)
            waiting.pop()()
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def ask_held(web, waiting, text):
    """Send `text` on a connection of its own; return its ends once it is held at the turnstile."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(web.url.rpartition(":")[2]))
    writer.write(text)
    async with asyncio.timeout(30):
        while not waiting:
            await asyncio.sleep(0.005)
    return reader, writer


async def test_nothing_is_kept_of_who_left_before_its_turn(monkeypatch):
    waiting = []
    monkeypatch.setattr(Turnstile, "enter", lambda _, begin: bool(waiting.append(begin)))
    async with running_web(MemoryStore()) as web:
        _, writer = await ask_held(web, waiting, b"POST /v1/responses HTTP/1.1\r\n")
        connection = waiting[0].__self__
        assert connection._held
        writer.close()
        async with asyncio.timeout(30):
            while not connection._lost:
                await asyncio.sleep(0.005)
        assert not connection._held and not waiting.pop()()


async def test_who_waits_for_its_turn_as_the_server_ends_is_answered(monkeypatch):
    waiting = []
    monkeypatch.setattr(Turnstile, "enter", lambda _, begin: bool(waiting.append(begin)))
    async with running_web(MemoryStore()) as web:
        reader, writer = await ask_held(web, waiting, b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 30)
    assert answer.startswith(b"HTTP/1.1 200 ") and b"connection: close" in answer.lower()
    assert not waiting.pop()()  # it had its turn
    writer.close()
