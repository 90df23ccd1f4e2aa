"""The composition root: the only place that names a concrete engine, a concrete store, a concrete server.

run_web      store ── Hub, Chat ── Starlette on uvicorn
run_engine   store ── Worker ── SglangEngine | ScriptedEngine
run_replay   sends an answer's ids again
run_store    the embedded Valkey, in place of this process
run_serve    all three as children of a supervisor (see `chatserver.service.supervisor`)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator

import uvicorn

from chatserver.adapters import embedded
from chatserver.adapters.valkey import ValkeyStore
from chatserver.domain.ids import ENTROPY_BYTES, new_id
from chatserver.errors import StartupError, Unavailable
from chatserver.ports.registry import EngineReport, EngineState, Registry
from chatserver.service import profiles
from chatserver.service.again import send_again, verdict
from chatserver.service.chat import Chat
from chatserver.service.child import Death
from chatserver.service.console import Console
from chatserver.service.hub import Hub
from chatserver.service.listening import listen, url
from chatserver.service.prefixes import Prefixes
from chatserver.service.prompting import PromptBuilder
from chatserver.service.roles import engine_role, store_role, web_role
from chatserver.service.run_folder import RunFolder
from chatserver.service.salt import salts
from chatserver.service.supervisor import Supervisor
from chatserver.service.tape_writer import TapeWriter
from chatserver.service.turn import TurnParts
from chatserver.service.worker import Worker, WorkerLimits
from chatserver.settings import Settings
from chatserver.transports.connections import ServerConfig
from chatserver.transports.http import create_app
from engine.contract import Engine, EngineError, ModelUnusable
from engine.launch_errors import explained
from engine.launch_record import recorded

log = logging.getLogger(__name__)

STORE_TIMEOUT = 60.0
"""Seconds that a role waits for the embedded store."""

LOADING_TTL = 10.0
"""Seconds that a report of a loading engine stands; it is renewed twice a second."""

CONFIGURATION_ERROR = 3
"""Exit code that tells the supervisor not to try again."""


def store_url(settings: Settings) -> str:
    """Return where the store is: the given Redis, or the embedded one of the data folder."""
    return settings.redis_url or embedded.url(settings.data_dir)


@contextlib.asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[ValkeyStore]:
    """Connect; close at the end. Raises StartupError when the store cannot be reached.

    The embedded store is waited for: a process runner starts all roles at once.
    """
    if settings.redis_url is None:
        await embedded.wait_ready(embedded.socket_path(settings.data_dir), STORE_TIMEOUT)
    store = await ValkeyStore.open(store_url(settings))
    try:
        yield store
    finally:
        await store.close()


async def run_web(settings: Settings) -> None:
    """Serve clients until SIGTERM or SIGINT."""
    async with open_store(settings) as store:
        hub = Hub(store.tapes, store.signals, _new_id("web"))
        chat = Chat(
            conversations=store.conversations,
            turns=store.turns,
            tapes=store.tapes,
            registry=store.registry,
            caches=store.caches,
            hub=hub,
            settings=settings,
        )
        config = ServerConfig(create_app(chat, hub, store.registry, settings), settings)
        await _WebServer(config, hub).serve(sockets=[listen(settings)])


async def run_engine(settings: Settings) -> None:
    """Load the model, then work until SIGTERM or SIGINT; finish or hand over what runs."""
    engine_id = settings.engine_id or _new_id("eng")
    async with open_store(settings) as store:
        try:
            engine = await _load(settings, store.registry, engine_id)
        except ModelUnusable as error:
            raise StartupError(str(error), exit_code=CONFIGURATION_ERROR) from error
        except EngineError as error:
            raise StartupError(f"the engine did not start: {error}") from error
        try:
            # Without a supervisor nobody else would bring the embedded store's file to the disk.
            async with _synced(settings) if settings.engine_id is None else contextlib.nullcontext():
                await _work(settings, store, engine, engine_id)
        finally:
            await engine.close()


async def run_replay(settings: Settings, response_id: str) -> None:
    """Send a response's ids again and print whether the answer is the same. Raises ChatServerError if it is not."""
    async with open_store(settings) as store:
        tenant = await store.turns.tenant_of(response_id)
        if not await store.registry.engines():
            raise Unavailable("No engine runs: start the server, then replay.")
        found = await send_again(store.conversations, store.turns, store.tapes, tenant, response_id)
        print(verdict(response_id, found))


def run_store(settings: Settings) -> None:
    """Become the embedded store of the data folder: replaces this process."""
    if settings.redis_url is not None:
        raise StartupError("a Redis URL is set: there is no embedded store to run", exit_code=2)
    prepared = embedded.prepare(settings.data_dir)
    os.umask(embedded.UMASK)
    os.set_inheritable(prepared.lock, True)  # the store holds the folder's lock as long as it lives
    os.execv(prepared.argv[0], prepared.argv)  # noqa: S606 - our own binary


async def run_serve(settings: Settings) -> None:
    """Supervise store, engine and web until SIGINT or SIGTERM."""
    listener = listen(settings)
    with listener, RunFolder(settings.data_dir) as folder:
        watch = _Watch(settings)
        if settings.redis_url is not None:
            await watch.store()  # not reachable: say so now, instead of restarting roles for it
        supervisor = Supervisor(
            store=None if settings.redis_url else store_role(settings, watch.ping),
            engine=engine_role(settings, watch.engines, watch.engine_died),
            web=web_role(settings, listener),
            folder=folder,
            console=Console(sys.stdout),
            address=url(listener),
            drain=settings.drain,
        )
        try:
            async with _synced(settings):
                await supervisor.run()
        finally:
            await watch.close()


@contextlib.asynccontextmanager
async def _synced(settings: Settings) -> AsyncIterator[None]:
    """Bring the embedded store's file to the disk every second: a power cut costs no more than that."""

    async def keep() -> None:
        while settings.redis_url is None:
            try:
                await embedded.keep_synced(settings.data_dir / "store")
            except OSError as error:
                log.error("the store's file cannot be synced: %s; check the disk", error)
                await asyncio.sleep(10)

    syncing = asyncio.create_task(keep(), name="sync")
    try:
        yield
    finally:
        syncing.cancel()
        await asyncio.gather(syncing, return_exceptions=True)


class _Watch:
    """The supervisor's own view of the store, opened when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: ValkeyStore | None = None

    async def store(self) -> ValkeyStore:
        """Return the store. Raises StartupError while it cannot be reached."""
        if self._store is None:
            self._store = await ValkeyStore.open(store_url(self._settings))
        return self._store

    async def ping(self) -> None:
        """Return if the store answers."""
        await (await self.store()).registry.ping()

    async def engines(self) -> list[EngineReport]:
        """Return the engines' reports."""
        return await (await self.store()).registry.engines()

    async def engine_died(self, death: Death) -> None:
        """Give a dead engine's answers to the next one at once, instead of when its leases run out."""
        store = await self.store()
        await store.turns.release(death.identity)
        await store.registry.drop(death.identity)

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._store is not None:
            await self._store.close()


class _WebServer(uvicorn.Server):
    """uvicorn that lets readers go with a hint before it waits for its connections."""

    def __init__(self, config: uvicorn.Config, hub: Hub) -> None:
        super().__init__(config)
        self._hub = hub

    def handle_exit(self, sig: int, frame: object) -> None:
        """Take SIGTERM and SIGINT: tell readers to come back elsewhere, then end as uvicorn does."""
        self._hub.dismiss("This server process is restarting; reconnect and resume where you are.")
        super().handle_exit(sig, frame)  # type: ignore[arg-type]


async def _load(settings: Settings, registry: Registry, engine_id: str) -> Engine:
    """Prepare and load the model, reporting each phase to the store."""
    phase = _Phase(engine_id)
    renewing = asyncio.create_task(phase.keep_reporting(registry))
    try:
        with recorded() as said:
            try:
                engine = await _make_engine(settings, phase)
                await engine.start(phase.say)
                return engine
            except EngineError as error:
                reason = explained(error, said())
                await phase.failed(registry, str(reason))
                raise reason from error.__cause__
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)


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

    async def keep_reporting(self, registry: Registry) -> None:
        """Renew the report until cancelled."""
        while True:
            with contextlib.suppress(Unavailable):  # the next one comes in half a second
                await registry.put(self._report(EngineState.LOADING), ttl=LOADING_TTL)
            await asyncio.sleep(0.5)

    async def failed(self, registry: Registry, reason: str) -> None:
        """Leave the reason for those who look after this process has ended."""
        self._detail = reason
        with contextlib.suppress(Unavailable):
            await registry.put(self._report(EngineState.FAILED), ttl=LOADING_TTL)

    def _report(self, state: EngineState) -> EngineReport:
        return EngineReport(self._engine_id, state, self._detail, self._since)


async def _make_engine(settings: Settings, phase: _Phase) -> Engine:
    if settings.model == "scripted":
        from engine.scripted import ScriptedEngine  # noqa: PLC0415 - each engine only where it runs

        return ScriptedEngine(
            tokens_per_second=settings.scripted_tokens_per_second,
            ttft_ms=settings.scripted_ttft_ms,
            context=settings.context or 8192,
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
        context=settings.context,
        max_running=running,
        log_level="info" if settings.log_level == "debug" else "error",
    )
    return SglangEngine(profiles.apply(settings, wanted))


async def _work(settings: Settings, store: ValkeyStore, engine: Engine, engine_id: str) -> None:
    """Run turns until a signal comes, then drain. Raises StartupError when the process must be restarted."""
    parts = TurnParts(
        engine=engine,
        prompts=PromptBuilder(
            engine.card,
            engine.tokenizer,
            store.conversations,
            store.turns,
            default_reserve=settings.max_output_tokens,
        ),
        turns=store.turns,
        tapes=store.tapes,
        writer=TapeWriter(store.tapes),
        prefixes=Prefixes(engine),
        salt=salts(await store.secrets.cache_salt()),
    )
    limits = WorkerLimits(profiles.max_running(settings), settings.lease, settings.drain)
    worker = Worker(engine_id, parts, store.signals, store.registry, limits, caches=store.caches)
    working = asyncio.create_task(worker.run(), name="worker")
    stopping = asyncio.create_task(_signalled(), name="signals")
    await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        stopping.cancel()
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


def _new_id(kind: str) -> str:
    return new_id(kind, 0, secrets.token_bytes(ENTROPY_BYTES))
