"""`chatserver web`: HTTP, SSE, WebSocket and the page."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Iterator

import uvicorn
import uvloop

from chatserver.adapters.valkey import ValkeyStore
from chatserver.app import garbage
from chatserver.app import store as stores
from chatserver.service.fresh import fresh_id
from chatserver.service.supervision.listening import listen
from chatserver.service.web.chat import Chat
from chatserver.service.web.feeds import Feeds
from chatserver.service.web.hub import Hub
from chatserver.service.web.lookout import Lookout
from chatserver.service.web.prices import Prices
from chatserver.settings import Settings
from chatserver.transports.connections import ServerConfig
from chatserver.transports.http import create_app

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run(settings: Settings) -> None:
    """Serve clients until SIGTERM or SIGINT."""
    uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    prices = Prices.read(settings.prices)
    async with stores.opened(settings) as store:
        hub = Hub(store.tapes, store.signals, fresh_id("web", 0))
        chat = chat_on(store, hub, settings, prices)
        app = create_app(chat, hub, store.registry, settings, access=store.access, accounts=store.accounts)
        listener = listen(settings, stored_keys=await store.access.any())
        lookout = asyncio.create_task(
            Lookout(store.registry, store.signals, store.turns).run(), name="lookout"
        )
        try:
            gc.collect()
            garbage.settle()
            await _Server(ServerConfig(app, settings), hub).serve(sockets=[listener])
        finally:
            lookout.cancel()
            await asyncio.gather(lookout, return_exceptions=True)


def chat_on(store: ValkeyStore, hub: Hub, settings: Settings, prices: Prices | None = None) -> Chat:
    """Return the web role's commands on a store."""
    return Chat(
        conversations=store.conversations,
        turns=store.turns,
        registry=store.registry,
        caches=store.caches,
        hub=hub,
        feeds=Feeds(store.signals),
        settings=settings,
        prices=prices,
    )


class _Server(uvicorn.Server):
    """uvicorn that lets readers go with a hint before it waits for its connections."""

    def __init__(self, config: uvicorn.Config, hub: Hub) -> None:
        super().__init__(config)
        self._hub = hub

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take signals in the event loop. uvicorn sends them again in the end: exit code −15."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    def handle_exit(self, sig: int, frame: object) -> None:
        """Take SIGTERM and SIGINT: tell readers to come back elsewhere, then end as uvicorn does."""
        self._hub.dismiss("This server process is restarting; reconnect and resume where you are.")
        super().handle_exit(sig, frame)  # type: ignore[arg-type]
