"""`chatserver serve`: everything on this machine, as children of a supervisor."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import uvloop

from chatserver.app import store as stores
from chatserver.ports.registry import EngineReport
from chatserver.service.supervision.child import Death
from chatserver.service.supervision.console import Console
from chatserver.service.supervision.listening import listen, url
from chatserver.service.supervision.roles import engine_role, store_role, web_role
from chatserver.service.supervision.run_folder import RunFolder
from chatserver.service.supervision.supervisor import Supervisor
from chatserver.service.web.prices import Prices
from chatserver.settings import Settings

if TYPE_CHECKING:
    from chatserver.adapters.valkey import ValkeyStore


def run(settings: Settings) -> None:
    """Supervise store, engine and web until SIGINT or SIGTERM."""
    uvloop.run(_supervise(settings))


async def _supervise(settings: Settings) -> None:
    Prices.read(settings.prices)  # a mistake in it is told now, not by a role that cannot start
    listener = listen(settings, stored_keys=await stores.has_keys(settings))
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
            async with stores.synced(settings):
                await supervisor.run()
        finally:
            await watch.close()


class _Watch:
    """The supervisor's own view of the store, opened when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: ValkeyStore | None = None
        self._opening = asyncio.Lock()

    async def store(self) -> ValkeyStore:
        """Return the store. Raises StartupError while it cannot be reached."""
        async with self._opening:
            if self._store is None:
                self._store = await stores.connect(self._settings)
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
