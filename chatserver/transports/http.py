"""The ASGI application: every route, and what is around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from chatserver.errors import ChatServerError
from chatserver.ports.registry import Registry
from chatserver.service.chat import Chat
from chatserver.service.hub import Hub
from chatserver.settings import Settings
from chatserver.transports import (
    chat_completions,
    conversations,
    documents,
    health,
    metrics,
    responses,
    static,
    websocket,
)
from chatserver.transports.auth import Keys
from chatserver.transports.door import Door
from chatserver.transports.middleware import BodyLimit, Envelope, on_error, on_http_error


def create_app(chat: Chat, hub: Hub, registry: Registry, settings: Settings) -> Starlette:
    """Return the web role's application. Its lifespan starts and stops the hub; it owns nothing else."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await hub.start()
        telling = asyncio.create_task(chat.places.run(), name="queue places")
        try:
            yield
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            await hub.close()

    door = Door(chat, registry, Keys(settings.api_keys, host=settings.host), settings)
    app = Starlette(
        routes=routes(door),
        middleware=[Middleware(Envelope), Middleware(BodyLimit, limit=settings.max_body)],
        exception_handlers={ChatServerError: on_error, HTTPException: on_http_error},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    # Not a mount at "/": that would answer a known path with a wrong method by 404.
    app.router.default = static.Page()
    return app


def routes(door: Door) -> list[BaseRoute]:
    """Return all routes but the page's."""
    return [
        *chat_completions.routes(door),
        *websocket.routes(door),
        *responses.routes(door),
        *conversations.routes(door),
        *health.routes(door.registry),
        *metrics.routes(door.registry),
        *documents.routes(),
    ]
