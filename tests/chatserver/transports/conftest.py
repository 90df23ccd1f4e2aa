"""The web role under a real uvicorn, on memory and on a real store; a fake engine writes the answers."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

import httpx
import pytest
import uvicorn
from openai import AsyncOpenAI

from chatserver.app.web import chat_on
from chatserver.service.web import vigil
from chatserver.service.web.chat import Chat
from chatserver.service.web.hub import Hub
from chatserver.settings import Settings
from chatserver.transports.connections import ServerConfig
from chatserver.transports.http import create_app
from tests.chatserver.transports.keyed import PRICES
from tests.fakes import MODEL, FakeEngine, MemoryStore
from tests.stores import empty_store


@dataclass
class Web:
    """One running web process, as a test sees it."""

    store: object
    engine: FakeEngine
    hub: Hub
    chat: Chat
    url: str
    settings: Settings
    key: str = "unused"
    clients: list = field(default_factory=list)

    def sdk(self, **options) -> AsyncOpenAI:
        client = AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, timeout=60, **options
        )
        self.clients.append(client)
        return client

    def http(self, **options) -> httpx.AsyncClient:
        client = httpx.AsyncClient(base_url=self.url, timeout=60, **options)
        self.clients.append(client)
        return client


@asynccontextmanager
async def running_web(store, *, engine: FakeEngine | None = None, prices=None, **changes):
    """Serve on a free port until the block ends."""
    settings = Settings(**changes)
    hub = Hub(store.tapes, store.signals, f"web_{id(changes)}")
    chat = chat_on(store, hub, settings, prices)
    engine = engine or FakeEngine(store)
    if isinstance(engine, FakeEngine):
        chat.warmth.patience = 0.05  # it answers no questions
    working = asyncio.create_task(engine.run())
    listening = socket.socket()
    # Small kernel buffers: a client that does not read is felt after 100 KB, not after 10 MB.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    listening.bind(("127.0.0.1", 0))
    app = create_app(chat, hub, store.registry, settings, access=store.access, accounts=store.accounts)
    config = ServerConfig(app, settings)
    config.timeout_graceful_shutdown = 1
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None
    serving = asyncio.create_task(server._serve([listening]))
    while not server.started:
        await asyncio.sleep(0.005)
        if serving.done():
            serving.result()
    web = Web(store, engine, hub, chat, f"http://127.0.0.1:{listening.getsockname()[1]}", settings)
    try:
        yield web
    finally:
        for client in web.clients:
            await (client.aclose() if isinstance(client, httpx.AsyncClient) else client.close())
        server.should_exit = True
        await serving
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working
        await engine.close()


@asynccontextmanager
async def opened_store(kind: str):
    if kind == "memory":
        yield MemoryStore()
        return
    async with empty_store() as store:
        yield store


@pytest.fixture
async def memory():
    """A web role in memory."""
    store = MemoryStore()
    store.known_models.append(MODEL)
    async with running_web(store) as web:
        yield web


@pytest.fixture(params=["memory", "valkey"])
async def web(request):
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened_store(request.param))
        web = await stack.enter_async_context(running_web(store))
        while not await web.store.registry.models():
            await asyncio.sleep(0.005)
        yield web


@pytest.fixture
async def two(monkeypatch):
    """Two web processes on one real store; the first has an engine."""
    monkeypatch.setattr(vigil, "INTERVAL", 0.05)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened_store("valkey"))
        first = await stack.enter_async_context(running_web(store, prices=PRICES))
        second = await stack.enter_async_context(
            running_web(store, engine=first.engine, prices=PRICES, cors_origins=("https://chat.example",))
        )
        while not await store.registry.models():
            await asyncio.sleep(0.005)
        yield first, second
