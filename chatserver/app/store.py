"""`chatserver store`: the embedded store; and how every other role finds and opens the store."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from chatserver.adapters import embedded
from chatserver.errors import StartupError
from chatserver.service.supervision.listening import is_exposed
from chatserver.settings import Settings

if TYPE_CHECKING:
    from chatserver.adapters.valkey import ValkeyStore

log = logging.getLogger(__name__)

STORE_TIMEOUT = 60.0
"""Seconds that a role waits for the embedded store."""


def run(settings: Settings) -> None:
    """Become the embedded store of the data folder: replaces this process."""
    if settings.redis_url is not None:
        raise StartupError("a Redis URL is set: there is no embedded store to run", exit_code=2)
    prepared = embedded.prepare(settings.data_dir)
    os.umask(embedded.UMASK)
    os.set_inheritable(prepared.lock, True)  # the store holds the folder's lock as long as it lives
    os.execv(prepared.argv[0], prepared.argv)  # noqa: S606 - our own binary


async def connect(settings: Settings) -> ValkeyStore:
    """Return the given Redis, or the embedded store of the data folder. Raises StartupError if it cannot be reached."""
    from chatserver.adapters.valkey import ValkeyStore  # noqa: PLC0415 - the store itself is spared it

    url = settings.redis_url or embedded.url(settings.data_dir)
    return await ValkeyStore.open(url, tape_ttl=settings.tape_ttl)


@contextlib.asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[ValkeyStore]:
    """Connect; close at the end. Raises StartupError when the store cannot be reached.

    The embedded store is waited for: all roles start at once.
    """
    if settings.redis_url is None:
        await embedded.wait_ready(embedded.socket_path(settings.data_dir), STORE_TIMEOUT)
    store = await connect(settings)
    try:
        yield store
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def borrowed(settings: Settings) -> AsyncIterator[ValkeyStore]:
    """Connect; start the embedded store for as long as that lasts if no server runs it. Raises StartupError."""
    running = contextlib.nullcontext() if settings.redis_url else embedded.running(settings.data_dir)
    async with running:
        store = await connect(settings)
        try:
            yield store
        finally:
            await store.close()


async def has_keys(settings: Settings) -> bool:
    """Whether the store has API keys; looked up only where that decides whether the server may listen."""
    if settings.api_keys or not is_exposed(settings):
        return False
    async with borrowed(settings) as store:
        return await store.access.any()


@contextlib.asynccontextmanager
async def synced(settings: Settings) -> AsyncIterator[None]:
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
