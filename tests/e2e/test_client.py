"""The Python client on the whole program: web killed, the engine restarted, in mid-answer."""

from __future__ import annotations

import asyncio

import pytest

from chatserver.client import Interrupted, Lost, Options, Started, TextDelta, connect

pytestmark = pytest.mark.e2e
LONG = {"temperature": 0, "max_output_tokens": 200, "ignore_eos": True}


@pytest.mark.parametrize("role", ["web", "engine"])
async def test_a_role_is_killed_under_three_answers(scripted, role):
    """SIGKILL while three answers run on one client: each comes whole and once, without a word from its reader."""
    async with connect(scripted.url, options=Options(patience=60)) as client:
        expected = (await client.ask("Tell me about tides.", **LONG)).text
        killed = asyncio.Event()

        async def read(at: int) -> tuple[str, list]:
            text, events = "", []
            async with client.send("Tell me about tides.", **LONG) as answer:
                async for event in answer:
                    if isinstance(event, TextDelta):
                        text += event.text
                        if event.position >= at and not killed.is_set():
                            killed.set()
                            await asyncio.to_thread(scripted.kill, role)
                    else:
                        events.append(event)
            assert answer.result.text == text
            return text, events

        found = await asyncio.wait_for(asyncio.gather(read(20), read(1000), read(1000)), 120)
    assert [text for text, _ in found] == [expected] * 3, scripted.tail()
    for _, events in found:
        if role == "web":
            assert any(isinstance(event, Lost) for event in events)
        else:
            assert any(
                isinstance(event, Interrupted) or (isinstance(event, Started) and event.claim > 1)
                for event in events
            )
