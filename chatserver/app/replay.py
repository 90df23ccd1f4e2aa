"""`chatserver replay`: send an answer's ids again."""

from __future__ import annotations

import uvloop

from chatserver.app import store as stores
from chatserver.errors import Unavailable
from chatserver.service.operation.again import send_again, verdict
from chatserver.settings import Settings


def run(settings: Settings, response_id: str) -> None:
    """Send a response's ids again and print whether the answer is the same. Raises ChatServerError if it is not."""
    uvloop.run(_replay(settings, response_id))


async def _replay(settings: Settings, response_id: str) -> None:
    async with stores.borrowed(settings) as store:
        tenant = await store.turns.tenant_of(response_id)
        if not await store.registry.engines():
            raise Unavailable("No engine runs: start the server, then replay.")
        found = await send_again(store.conversations, store.turns, store.tapes, tenant, response_id)
        print(verdict(response_id, found))
