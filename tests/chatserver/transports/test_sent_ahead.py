"""Requests that a client sends before it has the answer to an earlier one, and clients that leave amid them."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

PATHS = {
    "/v1/responses": {"model": "tiny", "input": "Hi"},
    "/v1/chat/completions": {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]},
}


def request(path: str, stream: bool) -> bytes:
    body = json.dumps(PATHS[path] | {"stream": stream}).encode()
    return b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (
        path.encode(),
        len(body),
        body,
    )


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("path", PATHS)
async def test_who_leaves_amid_the_first_of_several_is_no_fault_of_ours(
    memory, monkeypatch, caplog, path, stream
):
    """All that was asked on the connection ends quietly, not only what was asked last."""
    monkeypatch.setattr("chatserver.transports.sse.PING", 0.05)
    caplog.set_level(logging.INFO)
    memory.engine.write.clear()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(memory.url.rpartition(":")[2]))
    writer.write(3 * request(path, stream))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.transport.abort()
    async with asyncio.timeout(30):
        while memory.hub.following:
            await asyncio.sleep(0.01)
    memory.engine.write.set()
    await asyncio.sleep(0.1)
    assert len(memory.engine.started) == 1
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_each_is_answered_in_its_order(memory):
    reader, writer = await asyncio.open_connection("127.0.0.1", int(memory.url.rpartition(":")[2]))
    writer.write(b"".join(request(path, stream) for path in PATHS for stream in (False, True)))
    writer.write(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    answers = await asyncio.wait_for(reader.read(), 30)
    kinds = [
        answers.index(mark)
        for mark in (b'"object":"response"', b"response.completed", b'"chat.completion"', b"[DONE]", b"ok")
    ]
    assert answers.count(b"HTTP/1.1 200 ") == 5 and kinds[:4] == sorted(kinds[:4])
    writer.close()
