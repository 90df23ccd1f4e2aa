"""A web role with a real engine role beside it: real store, scripted engine, everything between, in one process."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from tests.chatserver.service.engine_role import scripted, worker
from tests.chatserver.transports.conftest import opened_store, running_web


class _Role:
    """Takes the fake engine's place."""

    def __init__(self, store, engine, limits: dict) -> None:
        self._store, self._engine, self._limits = store, engine, limits

    async def run(self) -> None:
        async with worker(self._store, self._engine, **self._limits) as self.worker:
            await asyncio.Event().wait()

    async def close(self) -> None:
        pass


@asynccontextmanager
async def web_and_engine(engine_options: dict | None = None, *, role: dict | None = None, **options):
    """Serve until the block ends. `role`: limits of the engine role; the web has it as `worker`, and `scripted`."""
    async with (
        opened_store("valkey") as store,
        scripted(**(engine_options or {})) as engine,
        running_web(store, engine=_Role(store, engine, role or {}), **options) as web,
    ):
        while not any(report.model for report in await store.registry.engines()):
            await asyncio.sleep(0.005)
        web.scripted, web.worker = engine, web.engine.worker
        yield web
