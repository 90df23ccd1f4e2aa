"""What readers that stall cost the web process: counted in calls, which no other program on the machine can change.

The others wait for what the process does between the store and them; what is not done cannot make them wait. The
same in milliseconds: `make bench NAME=connections`.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType

import orjson
import pytest
import starlette
import uvicorn
import websockets

import chatserver
from chatserver.service.web.follower import Follower
from tests.bench.connections.arms import HANDSHAKE
from tests.bench.connections.readers import Stalled, follow, open_all
from tests.bench.relay.client import Socket, masked
from tests.chatserver.transports.conftest import Web, running_web
from tests.fakes import MODEL, MemoryStore

ANSWERS = 5
FILL, COUNTED = 150, 200
"""Tokens that fill the buffers of who does not read, and those behind them, for which calls are counted."""
SHARE = 0.1
"""What a reader that stalls may cost, as a share of one that reads."""
SERVER = tuple(str(Path(it.__file__).parent) for it in (chatserver, uvicorn, starlette, websockets))
"""Where the functions are that are counted. The readers here are bare protocols and use none of them."""
NUMBER = re.compile(rb'"sequence_number":(\d+)[,}]')


class Calls:
    """Counts calls of the server's functions while it is open."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()

    def __enter__(self) -> Calls:
        sys.setprofile(self._on_event)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _on_event(self, frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(SERVER):
            self.of[f"{Path(code.co_filename).stem}.{code.co_name}"] += 1


class Reading(Socket):
    """One that reads. `number`: of the last event that came; `on_news` is called for each piece."""

    def __init__(self, request: tuple[bytes, bytes], name: str) -> None:
        super().__init__(request, b"response.completed")
        self.name, self.number, self.on_news = name, -1, lambda: None
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if found := NUMBER.findall(self._rest + data):
            self.number = int(found[-1])
        self._rest = data[-40:]
        self.on_news()


class InStep:
    """An engine's `write`: a token of each answer, and the next when all who read have it.

    However busy the machine is, no two tokens are sent as one, which would cost fewer calls. Behind what fills buffers
    it waits for `open`.
    """

    def __init__(self, store: MemoryStore, readers: list[Reading]) -> None:
        self.filled = asyncio.Event()
        self._store, self._readers = store, readers
        self._opened, self._tokens, self._waiting = False, 1, 0
        self._turn = asyncio.Event()
        for reader in readers:
            reader.on_news = self._look

    async def wait(self) -> None:
        self._waiting += 1
        turn = self._turn
        self._look()
        await turn.wait()

    def open(self) -> None:
        self._opened = True
        self._look()

    def _look(self) -> None:
        if self._waiting < ANSWERS or any(self._lacks(reader) for reader in self._readers):
            return
        if self._tokens == FILL:
            self.filled.set()
            if not self._opened:
                return
        self._tokens, self._waiting = self._tokens + 1, 0
        self._turn.set()
        self._turn = asyncio.Event()

    def _lacks(self, reader: Reading) -> bool:
        return reader.number < self._store.all_tapes[reader.name][-1].last


async def calls_for(door: str, stalled: int) -> Counter[str]:
    """Run the answers, each with one reader and so many that stall; return the calls for the last tokens."""
    store = MemoryStore()
    store.known_models.append(MODEL)
    async with running_web(store) as web, asyncio.timeout(240):
        web.engine.answer, web.engine.step = ["x" * 2000 + " "] * FILL + ["y "] * COUNTED, 1
        await web.engine.rest()
        names = [await begun(web) for _ in range(ANSWERS)]
        makes = iter([make for name in names for make in makers(door, name, stalled)])
        port, count = int(web.url.rpartition(":")[2]), ANSWERS * (1 + stalled)

        def reader() -> Socket:
            return next(makes)()

        opened = await open_all(reader, count, port, ramp=0, narrow=True)
        reading = [one for one in opened if isinstance(one, Reading)]
        await until(lambda: web.hub.following == count)
        web.engine.write = gate = InStep(store, reading)
        web.engine.go.set()
        await gate.filled.wait()
        await until(lambda: sum(one._behind for one in followers(web)) == ANSWERS * stalled)
        with Calls() as calls:
            gate.open()
            await asyncio.gather(*(one.ended for one in reading))
        for one in opened:
            one.close()
    return calls.of


def makers(door: str, name: str, stalled: int) -> list[Callable[[], Socket]]:
    """What makes the readers of an answer."""
    ask = request(door, name)
    return [partial(Reading, ask, name), *[partial(Stalled, ask, 2)] * stalled]


def followers(web: Web) -> list[Follower]:
    """Those of all answers."""
    return [one for readers in web.hub._followers.values() for one in readers]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what the web does."""
    while not condition():
        await asyncio.sleep(0.005)


def request(door: str, name: str) -> tuple[bytes, bytes]:
    """What a reader of an answer sends at first, and behind the first answer to that."""
    if door == "sse":
        return follow(name.encode()), b""
    return HANDSHAKE, masked(orjson.dumps({"type": "response.attach", "response_id": name}))


async def begun(web: Web) -> str:
    """Begin an answer that can have any number of readers."""
    return (await web.http().post("/v1/responses", json={"input": "Hi", "background": True})).json()["id"]


@pytest.mark.parametrize("door", ["sse", "websocket"])
async def test_a_reader_that_stalls_costs_next_to_nothing(door):
    """Twice as many stall as read, of the same answers; one in ten would cost less than a hundredth of what all do."""
    stalled = 2
    alone, beside = await calls_for(door, 0), await calls_for(door, stalled)
    each = sum(alone.values()) / ANSWERS
    assert each > COUNTED * 5, "hardly anything was counted"
    more = (sum(beside.values()) - sum(alone.values())) / (ANSWERS * stalled)
    assert more < SHARE * each, (more, each, (beside - alone).most_common(12))
