"""The event that closes a very long answer carries its whole text: what clients with default limits do with it."""

from __future__ import annotations

import json

import httpx
import httpx_sse
import pytest
from websockets.exceptions import ConnectionClosedError

from tests.chatserver.transports.test_websocket import send, socket_to

PIECE = "word " * 6000
TEXT = PIECE * 40
"""1.2 million characters: more than any window of a served model gives, and than `websockets` takes by default."""


@pytest.fixture
def long_answer(memory):
    memory.engine.answer = [PIECE] * 40
    return memory


async def test_the_sdk_over_websocket(long_answer):
    async with long_answer.sdk().responses.connect() as connection:
        await connection.response.create(model="tiny", input="Hello")
        async for event in connection:
            if event.type == "response.completed":
                break
    assert event.response.output_text == TEXT


async def test_the_sdk_and_httpx_sse_over_sse(long_answer):
    stream = await long_answer.sdk().responses.create(model="tiny", input="Hello", stream=True)
    events = [event async for event in stream]
    assert events[-1].response.output_text == TEXT
    path = f"{long_answer.url}/v1/responses/{events[-1].response.id}"
    async with (
        httpx.AsyncClient(timeout=20) as http,
        httpx_sse.aconnect_sse(http, "GET", path, params={"stream": "true"}) as source,
    ):
        found = [json.loads(event.data) async for event in source.aiter_sse()]
    assert found[-1]["response"]["output"][0]["content"][0]["text"] == TEXT


async def test_a_client_with_a_bound_of_its_own_is_told_by_itself(long_answer):
    """`websockets` closes such a connection with 1009; with `max_size=None` it reads the answer, as the guide says."""
    for most, closed in ((2**20, True), (None, False)):  # the first is its default
        async with socket_to(long_answer, max_size=most) as socket:
            await send(socket, type="response.create", model="tiny", input="Hello")
            event: dict = {}
            try:
                while event.get("type") != "response.completed":
                    event = json.loads(await socket.recv())
            except ConnectionClosedError as error:
                assert closed and error.sent is not None and error.sent.code == 1009
            else:
                assert not closed
