"""`chatserver engine`: the model."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from typing import TYPE_CHECKING

import uvloop

from chatserver.app import garbage, loading
from chatserver.app import store as stores
from chatserver.errors import StartupError, Unavailable
from chatserver.service.engine.abandoned import Abandoned
from chatserver.service.engine.compaction import Compactor
from chatserver.service.engine.prefixes import Prefixes
from chatserver.service.engine.prompting import PromptBuilder
from chatserver.service.engine.salt import salts
from chatserver.service.engine.tape_writer import TapeWriter
from chatserver.service.engine.turn import TurnParts
from chatserver.service.engine.worker import Worker, WorkerLimits
from chatserver.service.fresh import fresh_id
from chatserver.service.supervision import profiles
from chatserver.service.supervision.child import START_REFUSED
from chatserver.settings import Settings
from engine.contract import Engine, EngineError, ModelUnusable, StartRefused

if TYPE_CHECKING:
    from chatserver.adapters.valkey import ValkeyStore
    from engine.ranks import Ranks

log = logging.getLogger(__name__)

CONFIGURATION_ERROR = 3
"""Exit code that tells the supervisor not to try again."""


def run(settings: Settings) -> None:
    """Load the model, then work until SIGTERM or SIGINT; finish or hand over what runs."""
    ranks = None
    if settings.model != loading.SCRIPTED:
        if advice := profiles.unused_gpu(settings):
            log.warning(advice)
        ranks = loading.fork_ranks(settings)
    try:
        uvloop.run(_serve(settings, ranks))
    finally:
        if ranks is not None:
            ranks.end()


async def _serve(settings: Settings, ranks: Ranks | None) -> None:
    engine_id = settings.engine_id or fresh_id("eng", 0)
    async with stores.opened(settings) as store:
        try:
            engine = await loading.load(settings, store.registry, engine_id, ranks)
        except ModelUnusable as error:
            raise StartupError(str(error), exit_code=CONFIGURATION_ERROR) from error
        except StartRefused as error:
            raise StartupError(f"the engine cannot start: {error}", exit_code=START_REFUSED) from error
        except EngineError as error:
            raise StartupError(f"the engine did not start: {error}") from error
        garbage.settle()
        try:
            # Without a supervisor nobody else would bring the embedded store's file to the disk.
            async with stores.synced(settings) if settings.engine_id is None else contextlib.nullcontext():
                await _work(settings, store, engine, engine_id)
        finally:
            await engine.close()


async def _work(settings: Settings, store: ValkeyStore, engine: Engine, engine_id: str) -> None:
    """Run turns until a signal comes, then drain. Raises StartupError when the process must be restarted."""
    prompts = PromptBuilder(
        engine.card,
        engine.tokenizer,
        store.conversations,
        store.turns,
        default_reserve=settings.max_output_tokens,
    )
    prefixes, salt = Prefixes(engine), salts(await store.secrets.cache_salt())
    parts = TurnParts(
        engine=engine,
        prompts=prompts,
        turns=store.turns,
        tapes=store.tapes,
        writer=TapeWriter(store.tapes),
        prefixes=prefixes,
        compactor=Compactor(engine, prompts, store.conversations, prefixes, salt),
        salt=salt,
    )
    limits = WorkerLimits(
        profiles.max_running(settings),
        settings.lease,
        settings.drain,
        settings.abandon_after,
        Abandoned(settings.abandoned),
    )
    worker = Worker(engine_id, parts, store.signals, store.registry, limits, caches=store.caches)
    working = asyncio.create_task(worker.run(), name="worker")
    stopping = asyncio.create_task(_signalled(), name="signals")
    await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        stopping.cancel()
        with contextlib.suppress(Unavailable):  # then the supervisor does it, when this process has ended
            await store.turns.release(engine_id)
        raise StartupError(f"the engine stops: {_causes(working.exception())}")
    await worker.drain()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)


async def _signalled() -> None:
    """Return when SIGTERM or SIGINT comes."""
    came = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, came.set)
    await came.wait()


def _causes(error: BaseException | None) -> str:
    """Return the messages of an exception or of all in a group, in one line."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_causes(inner) for inner in error.exceptions)
    return str(error)
