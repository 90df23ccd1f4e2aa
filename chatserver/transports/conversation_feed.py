"""One conversation told to one WebSocket: what is true of it now, and again after each change.

    subscribe ──> changed (all of it) ──bell──> changed ──bell──> … ──> deleted

The events say how things stand, not what was done: one that is merged into the next loses nothing. What a running
answer writes is on its tape; `response.attach` follows it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from chatserver.errors import NotFound, Unavailable
from chatserver.service.web.chat import Chat
from chatserver.transports.frame_socket import FrameSocket
from chatserver.wire import frames
from chatserver.wire.conversations import changed_event, gone_event

LOOK_AGAIN = 5.0
"""Seconds after which a store that did not answer is asked again, if no bell rings before."""


async def tell(chat: Chat, tenant: str, socket: FrameSocket, frame: frames.Subscribe) -> None:
    """Tell of the conversation until it is deleted or the task is cancelled.

    Raises NotFound and Unavailable before the first event; afterwards the store's absence only delays.
    """
    lane = {} if frame.stream_id is None else {"stream_id": frame.stream_id}
    told = False
    with chat.feeds.bell(frame.conversation_id) as bell:
        while True:
            bell.clear()
            patience: float | None = None
            try:
                await socket.send(orjson.dumps(await _state(chat, tenant, frame.conversation_id) | lane))
                told = True
            except (NotFound, Unavailable) as error:
                if not told:
                    raise
                if isinstance(error, NotFound):
                    await socket.send(orjson.dumps(gone_event(frame.conversation_id) | lane))
                    return
                patience = LOOK_AGAIN
            await _wait(bell, patience)


async def _state(chat: Chat, tenant: str, conversation_id: str) -> dict[str, Any]:
    conversation = await chat.conversation(tenant, conversation_id)
    running = await chat.running(tenant, conversation_id) if conversation.active else []
    return changed_event(conversation, running)


async def _wait(bell: asyncio.Event, patience: float | None) -> None:
    try:
        async with asyncio.timeout(patience):
            await bell.wait()
    except TimeoutError:
        return
