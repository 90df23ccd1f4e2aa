"""A store that is away for a moment in which an answer needs it: the answer waits for the store, not for its lease."""

from __future__ import annotations

import asyncio

import pytest

from chatserver.errors import Unavailable
from tests.chatserver.service.engine_role import (
    TENANT,
    ended,
    first_turn,
    run_turn,
    scripted,
    tokens_on_tape,
    worker,
)

LEASE = 600.0
"""Longer than the test: whoever waits for it is too late."""


def away(monkeypatch, port, name: str, *, done: bool) -> list[str]:
    """Have two calls of a store's step end without an answer, though they were `done`; return what was called."""
    real, calls = getattr(port, name), []

    async def step(*arguments, **options):
        calls.append(name)
        answer = await real(*arguments, **options) if done or len(calls) > 2 else None
        if len(calls) <= 2:
            raise Unavailable("the store is away")
        return answer

    monkeypatch.setattr(port, name, step)
    return calls


@pytest.mark.parametrize("done", [False, True], ids=["not done", "the answer lost"])
@pytest.mark.parametrize(
    "step", ["the conversation is read", "an earlier claim is read back", "the end is written"]
)
async def test_an_answer_goes_on_as_soon_as_the_store_is_back(store, monkeypatch, step, done):
    async with scripted() as engine, worker(store, engine):
        expected = await run_turn(store, first_turn("Tides"))
    turn = first_turn("Tides")
    name = (await store.turns.begin(turn, queue_bound=9)).response_id
    claims = 1
    if step == "an earlier claim is read back":
        await store.turns.claim("eng-gone", lease=LEASE)
        assert await store.turns.release("eng-gone") == 1
        calls, claims = away(monkeypatch, store.tapes, "read", done=done), 2
    elif step == "the conversation is read":
        calls = away(monkeypatch, store.conversations, "branch", done=done)
    else:
        calls = away(monkeypatch, store.turns, "finish", done=done)
    async with scripted() as engine, worker(store, engine, lease=LEASE):
        async with asyncio.timeout(60):
            while len(calls) < 3:
                await asyncio.sleep(0.01)
        response = await ended(store, name)
    assert response.outcome.item.text == expected.outcome.item.text
    assert response.outcome.usage.output == expected.outcome.usage.output == await tokens_on_tape(store, name)
    assert response.claim == claims and response.tenant == TENANT
