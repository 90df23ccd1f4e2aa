"""One WebSocket as text frames: how long its client may read nothing."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from chatserver.errors import Unavailable
from chatserver.transports import frame_socket
from chatserver.transports.frame_socket import FrameSocket


async def test_a_send_that_was_called_off_does_not_end_the_connection(monkeypatch):
    """Who ends a subscription while the client reads slowly ends what was being sent, not the connection 30 s later."""
    monkeypatch.setattr(frame_socket, "SEND_TIMEOUT", 0.2)
    reads, begun = asyncio.Event(), asyncio.Event()

    async def send(_) -> None:
        begun.set()
        await reads.wait()

    async def receive():
        await asyncio.Event().wait()

    socket = FrameSocket({"type": "websocket"}, receive, send, max_frame=1, idle=60)
    serving = asyncio.create_task(socket.serve(socket.receive()))
    sending = asyncio.create_task(socket.send(b"{}"))
    await begun.wait()
    sending.cancel()
    with suppress(asyncio.CancelledError):
        await sending
    reads.set()
    await socket.send(b"{}")
    await asyncio.sleep(0.5)
    assert not serving.done()
    reads.clear()
    sending = asyncio.create_task(socket.send(b"{}"))
    with pytest.raises(Unavailable) as ended:
        await asyncio.wait_for(serving, 60)
    assert ended.value.code == frame_socket.SLOW_READER
    sending.cancel()
    socket.release()
