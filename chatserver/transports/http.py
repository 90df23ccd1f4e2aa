"""The ASGI application: every route, and what is around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from chatserver.ports.access import Access
from chatserver.ports.accounts import Accounts
from chatserver.ports.registry import Registry
from chatserver.service.web.admission import Admission
from chatserver.service.web.chat import Chat
from chatserver.service.web.hub import Hub
from chatserver.service.web.pulse import Pulse
from chatserver.service.web.settling import Settling
from chatserver.settings import Settings
from chatserver.transports import (
    chat_completions,
    conversations,
    documents,
    health,
    metrics,
    responses,
    static,
    usage,
    websocket,
)
from chatserver.transports.auth import Keys
from chatserver.transports.cross_origin import cross_origin
from chatserver.transports.door import Door
from chatserver.transports.gate import guarded
from chatserver.transports.lasting import Application
from chatserver.transports.middleware import BodyLimit, Envelope

FIRST = ("/v1/responses", "/v1/chat/completions")
"""Paths that are looked for before all others, each of which takes a µs or two: nearly all requests want them."""


def create_app(
    chat: Chat, hub: Hub, registry: Registry, settings: Settings, *, access: Access, accounts: Accounts
) -> Application:
    """Return the web role's application. Its lifespan starts and stops the hub and the bookkeeping."""
    settling = Settling(accounts)
    admission = Admission(accounts)
    pulse = Pulse(hub)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await hub.start()
        await chat.feeds.start()
        await settling.start()
        running = [
            asyncio.create_task(chat.places.run(), name="queue places"),
            asyncio.create_task(admission.vigil.run(), name="vigil"),
            asyncio.create_task(pulse.run(), name="pulse"),
        ]
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await settling.close()
            await chat.feeds.close()
            await hub.close()

    keys = Keys(settings.api_keys, host=settings.host, access=access, origins=settings.cors_origins)
    door = Door(chat, registry, keys, settings, admission, accounts, pulse)
    app = Application(
        routes=routes(door),
        middleware=[
            *cross_origin(settings.cors_origins),
            Middleware(Envelope),
            Middleware(BodyLimit, limit=settings.max_body),
        ],
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    # Not a mount at "/": that would answer a known path with a wrong method by 404.
    app.router.default = _Elsewhere()
    return app


class _Elsewhere:
    """What no route takes: perhaps one of the page's files."""

    def __init__(self) -> None:
        self._page = static.Page()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or handshake."""
        if scope["type"] == "websocket":
            await websocket.refuse_elsewhere(scope, receive, send)
        else:
            await self._page(scope, receive, send)


def routes(door: Door) -> list[BaseRoute]:
    """Return all routes but the page's. Those without a gate are public, or check the key themselves (WebSocket)."""
    behind_the_gate = [
        *chat_completions.routes(door),
        *responses.routes(door),
        *conversations.routes(door),
        *usage.routes(door),
        *metrics.routes(door.registry, door.pulse),
    ]
    behind_the_gate.sort(key=lambda route: route.path not in FIRST)
    public = [*health.routes(door.registry), *documents.routes()]
    return [
        *websocket.routes(door),
        *(guarded(route, door) for route in behind_the_gate),
        *public,
    ]
