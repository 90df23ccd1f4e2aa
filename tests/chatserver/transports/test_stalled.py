"""What readers that stall cost the web process: counted in calls, which no other program on the machine can change.

The others wait for what the process does between the store and them; what is not done cannot make them wait. The
same in milliseconds: `make bench NAME=connections`.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

import orjson
import pytest
import starlette
import uvicorn
import websockets

import chatserver
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


async def calls_for(door: str, stalled: int) -> Counter[str]:
    """Run the answers, each with one reader and so many that stall; return the calls for the last tokens."""
    store = MemoryStore()
    store.known_models.append(MODEL)
    async with running_web(store) as web:
        web.engine.answer = ["x" * 2000 + " "] * FILL + ["y "] * COUNTED
        web.engine.step, web.engine.pause = 1, 0.002
        names = [await begun(web) for _ in range(ANSWERS)]
        port = int(web.url.rpartition(":")[2])
        asks = iter([request(door, name) for name in names for _ in range(1 + stalled)])
        kinds = iter([kind for _ in names for kind in (Socket, *(Stalled for _ in range(stalled)))])

        def reader() -> Socket:
            kind, ask = next(kinds), next(asks)
            return kind(ask, 2) if kind is Stalled else kind(ask, b"response.completed")

        opened = await open_all(reader, ANSWERS * (1 + stalled), port, ramp=0, narrow=True)
        reading = [one for one in opened if not isinstance(one, Stalled)]
        await until_filled(web, names)
        with Calls() as calls:
            web.engine.write.set()
            async with asyncio.timeout(120):
                await asyncio.gather(*(one.ended for one in reading))
        for one in opened:
            one.close()
    return calls.of


def request(door: str, name: str) -> tuple[bytes, bytes]:
    """What a reader of an answer sends at first, and behind the first answer to that."""
    if door == "sse":
        return follow(name.encode()), b""
    return HANDSHAKE, masked(orjson.dumps({"type": "response.attach", "response_id": name}))


async def begun(web: Web) -> str:
    """Begin an answer that can have any number of readers."""
    return (await web.http().post("/v1/responses", json={"input": "Hi", "background": True})).json()["id"]


async def until_filled(web: Web, names: list[str]) -> None:
    """Hold the engine once all answers are past what fills buffers; wait for those that read."""

    def written(name: str) -> int:
        return web.store.all_tapes[name][-1].last

    async with asyncio.timeout(120):
        while min(map(written, names)) < FILL:
            await asyncio.sleep(0.005)
        web.engine.write.clear()
        await asyncio.sleep(0.2)


@pytest.mark.parametrize("door", ["sse", "websocket"])
async def test_a_reader_that_stalls_costs_next_to_nothing(door):
    """Twice as many stall as read, of the same answers; one in ten would cost less than a hundredth of what all do."""
    stalled = 2
    alone, beside = await calls_for(door, 0), await calls_for(door, stalled)
    each = sum(alone.values()) / ANSWERS
    assert each > COUNTED * 5, "hardly anything was counted"
    more = (sum(beside.values()) - sum(alone.values())) / (ANSWERS * stalled)
    assert more < SHARE * each, (more, each, (beside - alone).most_common(12))
