"""/livez: the process runs. /readyz: it can answer."""

from __future__ import annotations

import asyncio
import time

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from chatserver.errors import Unavailable
from chatserver.ports.registry import EngineReport, EngineState, Registry
from chatserver.transports.door import json_response
from chatserver.wire import errors

STORE_TIMEOUT = 2.0
"""Seconds in which the store must answer."""


def routes(registry: Registry) -> list[Route]:
    """Return the routes; they need no key."""

    async def livez(request: Request) -> Response:
        return json_response({"status": "ok"})

    async def readyz(request: Request) -> Response:
        try:
            async with asyncio.timeout(STORE_TIMEOUT):
                await registry.ping()
                engines = await registry.engines()
        except (Unavailable, TimeoutError):
            return _answer("the store does not answer", [])
        if any(engine.state is EngineState.READY for engine in engines):
            return _answer(None, engines)
        return _answer(_why(engines), engines)

    return [Route("/livez", livez, methods=["GET"]), Route("/readyz", readyz, methods=["GET"])]


def _why(engines: list[EngineReport]) -> str:
    if not engines:
        return "no engine has reported yet"
    newest = max(engines, key=lambda engine: engine.since)
    return f"no engine is ready: {newest.state.value} ({newest.detail})"


def _answer(reason: str | None, engines: list[EngineReport]) -> Response:
    now = time.time()
    listed = [
        {
            "id": engine.engine_id,
            "state": engine.state.value,
            "detail": engine.detail,
            "seconds": round(max(0.0, now - engine.since), 1),
            "model": engine.model.name if engine.model else None,
            "running": engine.running,
            "queued": engine.queued,
            "kv_used": engine.kv_used,
            "kv_tokens": engine.kv_tokens,
            "kv_cached": engine.kv_cached,
            "kv_leaked": engine.kv_leaked,
        }
        for engine in engines
    ]
    body = {"status": "ready" if reason is None else "unavailable", "reason": reason, "engines": listed}
    if reason is None:
        return json_response(body)
    answer = json_response(body, Unavailable.status)
    answer.headers.update(errors.headers(Unavailable(reason)))
    return answer
