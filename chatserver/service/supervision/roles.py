"""The three roles of the program: each is this program again, with another command."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from chatserver.ports.registry import EngineReport, EngineState
from chatserver.service.fresh import fresh_id
from chatserver.service.supervision.child import Death, Launch, Progress, Role
from chatserver.service.supervision.listening import reachable
from chatserver.settings import Settings, environment

LIVE_PATH = "/livez"
ENGINE_TRIES = 4
"""Starts of an engine that was never ready; each takes seconds, and most of what ends one would end the next."""
_SERIOUS = re.compile(
    r"^chatserver: |^Traceback|^\w*(Error|Exception)\b|\b(ERROR|CRITICAL|Fatal)\b|^[\d: ,-]+WARNING\b"
)


def store_role(settings: Settings, answers: Callable[[], Awaitable[object]]) -> Role:
    """Return the embedded store. `answers` returns if it can be used, and raises if it cannot yet."""

    async def probe(identity: str) -> Progress:
        await answers()
        return Progress(ready=True)

    return Role(
        "store",
        lambda: _launch("store", settings),
        probe,
        shown=_shown(settings),
        # it writes its append-only file to the end even when the supervisor was killed
        parent_death=signal.SIGTERM,
        tries=5,
    )


def engine_role(
    settings: Settings,
    engines: Callable[[], Awaitable[list[EngineReport]]],
    on_death: Callable[[Death], Awaitable[None]],
) -> Role:
    """Return the engine, every life under an id of its own, which is `Death.identity`.

    `engines` reads the registry: an engine's report is its progress. `on_death`: give its jobs away at once.
    """

    def launch() -> Launch:
        identity = fresh_id("eng", 0)
        return replace(_launch("engine", replace(settings, engine_id=identity)), identity=identity)

    async def probe(identity: str) -> Progress:
        reports = [report for report in await engines() if report.engine_id == identity]
        return _progress(reports[0]) if reports else Progress(ready=False)

    opening = "starting" if settings.model == "scripted" else "importing SGLang"
    shown = _shown(settings)
    return Role("engine", launch, probe, on_death, shown=shown, tries=ENGINE_TRIES, opening=opening)


def web_role(settings: Settings, listener: socket.socket) -> Role:
    """Return web, accepting on `listener`, which stays open here: while web restarts, connections wait."""
    told = replace(settings, listen_fd=listener.fileno(), port=listener.getsockname()[1])
    launch = replace(_launch("web", told), pass_fds=(listener.fileno(),))

    async def probe(identity: str) -> Progress:
        return Progress(await _is_live(*reachable(listener)))

    return Role("web", lambda: launch, probe, shown=_shown(settings))


def _launch(command: str, settings: Settings) -> Launch:
    return Launch((sys.executable, "-m", "chatserver", command), _environ(settings))


def _environ(settings: Settings) -> Mapping[str, str]:
    # containers often forbid bytecode; without it every engine start compiles SGLang and torch again
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, "PYTHONUNBUFFERED": "1", **environment(settings)}


def _progress(report: EngineReport) -> Progress:
    if report.state is EngineState.READY and report.model:
        return Progress(True, f"{report.model.name}, {report.model.context} tokens of context")
    if report.state is EngineState.FAILED:
        return Progress(False, "ending")  # its last words say why
    return Progress(report.state is EngineState.READY, report.detail)


def _shown(settings: Settings) -> Callable[[str], bool]:
    """Return which lines the console shows: the serious ones, or all when debugging. The logs have all."""
    return bool if settings.log_level == "debug" else lambda line: _SERIOUS.search(line) is not None


async def _is_live(host: str, port: int) -> bool:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {LIVE_PATH} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
        status = await reader.readline()
    finally:
        writer.close()
    return status.split(b" ")[1:2] == [b"200"]
