"""What outlasts its request: nothing of the layers stays, and waiters are woken without asyncio's queues."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest
from starlette.requests import Request
from starlette.routing import Route

from chatserver.transports.lasting import Application, leave
from chatserver.transports.lean import Signal


def application(run) -> Application:
    """An application with one endpoint that leaves `run`."""

    class Answer:
        async def __call__(self, scope, receive, send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            leave(scope, run)

    async def endpoint(_request: Request) -> Answer:
        return Answer()

    return Application(routes=[Route("/", endpoint)])  # type: ignore[arg-type]


async def serve(run) -> dict:
    """Send it a request; return the scope that is left."""
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [(b"x-long", b"x")],
        "query_string": b"",
    }
    sent: list = []

    async def send(message) -> None:
        sent.append(message["type"])

    await application(run)(scope, None, send)  # type: ignore[arg-type]
    assert sent[0] == "http.response.start"
    return scope


async def test_when_it_runs_the_request_is_gone():
    """Neither the request nor what the layers wrapped around it is alive."""
    alive = []

    async def run(_receive, _send) -> None:
        gc.collect()
        alive.extend(one for one in gc.get_objects() if isinstance(one, Request))

    scope = await serve(run)
    assert alive == [] and scope == {"type": "http", "method": "GET"}


async def test_a_client_that_stopped_reading_is_no_error(caplog):
    async def run(_receive, _send) -> None:
        raise TimeoutError

    with caplog.at_level(logging.INFO):
        await serve(run)
    assert [r.levelname for r in caplog.records if "stopped reading" in r.message] == ["INFO"]


async def test_what_breaks_it_is_logged_and_ends_the_connection(caplog):
    async def run(_receive, _send) -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        await serve(run)
    assert "failed amid its answer" in caplog.text


async def test_a_signal_wakes_all_that_wait_and_forgets_who_left():
    signal = Signal()
    waiting = [asyncio.create_task(signal.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting.pop().cancel()
    await asyncio.sleep(0)
    assert not signal.is_set()
    signal.set()
    signal.clear()
    assert await asyncio.gather(*waiting) == [True, True]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(signal.wait(), 0.01)
