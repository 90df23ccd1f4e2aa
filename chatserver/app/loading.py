"""From settings to an engine that is ready, each phase reported to the store for everybody who waits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from chatserver.errors import Unavailable
from chatserver.ports.registry import EngineReport, EngineState, Registry
from chatserver.service.supervision import profiles
from chatserver.settings import Settings
from engine.contract import Engine, EngineError, ModelUnusable
from engine.launch_errors import explained
from engine.launch_record import recorded

if TYPE_CHECKING:
    from engine.ranks import Ranks

log = logging.getLogger(__name__)

SCRIPTED = "scripted"
"""The model that is none: a deterministic engine."""

LOADING_TTL = 10.0
"""Seconds that a report of a loading engine stands; it is renewed twice a second."""


def fork_ranks(settings: Settings) -> Ranks | None:
    """Import SGLang into this process and fork its schedulers, while there is no event loop yet.

    None where they are spawned later. Also where the start is bound to fail: `load` says why, and where all can see it.
    """
    from engine import ranks  # noqa: PLC0415 - each engine only where it runs
    from engine.models import known_models, prepare  # noqa: PLC0415
    from engine.settings import EngineSettings  # noqa: PLC0415

    os.environ.setdefault("ENGINE_KERNEL_CACHE", str(settings.data_dir / "kernels"))
    try:
        if settings.model not in known_models():
            prepare(settings.model, settings.data_dir, lambda *progress: None)  # only looks: it is a folder
        return ranks.fork(profiles.spread(settings, EngineSettings(settings.data_dir, settings.model)))
    except (ModelUnusable, ImportError) as error:
        log.debug("schedulers cannot be forked: %s", error)
        return None


async def load(settings: Settings, registry: Registry, engine_id: str, ranks: Ranks | None) -> Engine:
    """Prepare and load the model. Raises EngineError with what to change."""
    phase = _Phase(engine_id)
    async with phase.reported(registry):
        with recorded() as said:
            try:
                engine = await _make(settings, phase, ranks)
                await engine.start(phase.say)
                return engine
            except EngineError as error:
                reason = explained(error, said())
                await phase.failed(registry, str(reason))
                raise reason from error.__cause__


async def _make(settings: Settings, phase: _Phase, ranks: Ranks | None) -> Engine:
    if settings.model == SCRIPTED:
        from engine.scripted import ScriptedEngine  # noqa: PLC0415 - each engine only where it runs

        return ScriptedEngine(
            tokens_per_second=settings.scripted_tokens_per_second,
            ttft_ms=settings.scripted_ttft_ms,
            context=settings.context or 8192,
            aliases=settings.aliases,
        )
    from engine.models.prepare import prepare  # noqa: PLC0415
    from engine.settings import EngineSettings  # noqa: PLC0415
    from engine.sglang_engine import SglangEngine  # noqa: PLC0415

    running = profiles.max_running(settings)  # first: a wrong profile is told before minutes of preparation
    phase.say(f"preparing model {settings.model}")
    path = await asyncio.to_thread(prepare, settings.model, settings.data_dir, phase.progress)
    wanted = EngineSettings(
        model_path=path,
        name=path.name if os.sep in settings.model else settings.model,
        aliases=settings.aliases,
        context=settings.context,
        max_running=running,
        silence=settings.silence,
        log_level="info" if settings.log_level == "debug" else "error",
    )
    applied = profiles.apply(settings, wanted)
    if ranks is not None:
        from engine.cpu import portable  # noqa: PLC0415 - imported by now

        await asyncio.to_thread(portable.warm, phase.progress)
    return SglangEngine(applied, ranks)


class _Phase:
    """What a loading engine is doing, for everybody who waits for it."""

    def __init__(self, engine_id: str) -> None:
        self._engine_id = engine_id
        self._since = time.time()
        self._detail = "starting"

    def say(self, detail: str) -> None:
        """Set what is being done; safe from any thread."""
        if detail != self._detail:
            log.info("%s", detail)
        self._detail = detail

    def progress(self, done: int, total: int, text: str) -> None:
        """Set how far the preparation of the model is; safe from any thread."""
        self._detail = f"{text} {done * 100 // total} %" if total else text

    @contextlib.asynccontextmanager
    async def reported(self, registry: Registry) -> AsyncIterator[None]:
        """Renew the report within."""
        renewing = asyncio.create_task(self._keep_reporting(registry))
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)

    async def failed(self, registry: Registry, reason: str) -> None:
        """Leave the reason for those who look after this process has ended."""
        self._detail = reason
        with contextlib.suppress(Unavailable):
            await registry.put(self._report(EngineState.FAILED), ttl=LOADING_TTL)

    async def _keep_reporting(self, registry: Registry) -> None:
        while True:
            with contextlib.suppress(Unavailable):  # the next one comes in half a second
                await registry.put(self._report(EngineState.LOADING), ttl=LOADING_TTL)
            await asyncio.sleep(0.5)

    def _report(self, state: EngineState) -> EngineReport:
        return EngineReport(self._engine_id, state, self._detail, self._since)
