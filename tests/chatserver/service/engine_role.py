"""An engine role in the test's own process: scripted engine, real Valkey, everything between."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from chatserver.adapters.valkey import ValkeyStore
from chatserver.domain.ids import ENTROPY_BYTES, new_id
from chatserver.domain.item import Item, Message, Role
from chatserver.domain.response import Params, Response
from chatserver.domain.tape import Delta, Record
from chatserver.ports.turns import NewTurn
from chatserver.service.engine.compaction import Compactor
from chatserver.service.engine.prefixes import Prefixes
from chatserver.service.engine.prompting import PromptBuilder
from chatserver.service.engine.tape_writer import TapeWriter
from chatserver.service.engine.turn import TurnParts
from chatserver.service.engine.worker import Worker, WorkerLimits
from engine.contract import Engine
from engine.scripted import ScriptedEngine

TENANT = "tests"


def identifier(kind: str, shard: int = 3) -> str:
    """A fresh id."""
    return new_id(kind, shard, secrets.token_bytes(ENTROPY_BYTES))


@contextlib.asynccontextmanager
async def scripted(**options: object) -> AsyncIterator[ScriptedEngine]:
    """A started scripted engine, fast unless told otherwise."""
    engine = ScriptedEngine(**{"tokens_per_second": 2000.0, "ttft_ms": 1.0, **options})
    await engine.start(lambda _: None)
    try:
        yield engine
    finally:
        await engine.close()


def parts_of(store: ValkeyStore, engine: Engine) -> TurnParts:
    """What turns share."""
    prompts = PromptBuilder(
        engine.card, engine.tokenizer, store.conversations, store.turns, default_reserve=64
    )
    prefixes = Prefixes(engine)
    return TurnParts(
        engine,
        prompts,
        store.turns,
        store.tapes,
        TapeWriter(store.tapes),
        prefixes,
        Compactor(engine, prompts, store.conversations, prefixes, lambda tenant: tenant),
        lambda tenant: tenant,
    )


@contextlib.asynccontextmanager
async def worker(
    store: ValkeyStore, engine: Engine, *, lease: float = 60.0, drain: float = 1.0, **more: Any
) -> AsyncIterator[Worker]:
    """A running worker. With a short `lease` it may lose its jobs where the machine holds up this process."""
    limits = WorkerLimits(**{"max_running": 16, "lease": lease, "drain": drain, **more})
    parts = parts_of(store, engine)
    running = Worker(identifier("eng"), parts, store.signals, store.registry, limits, caches=store.caches)
    task = asyncio.create_task(running.run())
    try:
        yield running
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def response_for(
    *,
    conversation: str | None = None,
    parent: str | None = None,
    inputs: tuple[str, ...] = (),
    **params: object,
) -> Response:
    """A response to begin; stateless unless a conversation is named."""
    usual = {"model": "scripted", "max_output_tokens": 20, "ignore_end": True, "temperature": 0.0}
    chosen = Params(**{**usual, **params})
    return Response(
        id=identifier("resp"),
        tenant=TENANT,
        params=chosen,
        created_at=int(time.time()),
        accepted_at=time.time(),
        conversation=conversation,
        parent=parent,
        inputs=inputs,
        item_id=identifier("msg"),
        stored=conversation is not None,
    )


def stateless(text: str = "Hello", **params: object) -> NewTurn:
    """A turn without a conversation."""
    return NewTurn(response_for(messages=(Message("user", text),), **params))


def first_turn(text: str, **params: object) -> NewTurn:
    """A turn that makes its conversation."""
    item = Item(identifier("msg"), None, Role.USER, text)
    return NewTurn(
        response_for(conversation=identifier("conv"), inputs=(item.id,), **params), items=(item,), create=True
    )


def next_turn(before: Response, text: str, **params: object) -> NewTurn:
    """A turn behind the answer of `before`."""
    item = Item(identifier("msg"), before.item_id, Role.USER, text)
    response = response_for(
        conversation=before.conversation, parent=before.item_id, inputs=(item.id,), **params
    )
    return NewTurn(response, items=(item,), exclusive=True)


async def ended(store: ValkeyStore, response_id: str, timeout: float = 60.0) -> Response:
    """Wait for the end of a response."""
    async with asyncio.timeout(timeout):
        while not (response := await store.turns.get(TENANT, response_id)).status.ended:
            await asyncio.sleep(0.01)
    return response


async def tokens_on_tape(store: ValkeyStore, response_id: str) -> int:
    """How many tokens a tape holds."""
    count, after = 0, -1
    while records := await store.tapes.read(response_id, after):
        count += sum(len(record.body.ids) for record in records if isinstance(record.body, Delta))
        after = records[-1].last
    return count


async def run_turn(store: ValkeyStore, turn: NewTurn) -> Response:
    """Begin a turn and wait for its end."""
    begun = await store.turns.begin(turn, queue_bound=100)
    return await ended(store, begun.response_id)


async def outlived(store: ValkeyStore, turn: NewTurn, *, fail_after: int) -> Response:
    """Begin a turn and wait for its end, which three engines do not live to see: each fails after so many tokens."""
    await store.turns.begin(turn, queue_bound=100)
    for _ in range(3):
        async with (
            scripted(fail_after=fail_after) as engine,
            worker(store, engine) as killed,
            asyncio.timeout(60),
        ):
            while not engine._lost:
                await asyncio.sleep(0.01)
        await store.turns.release(killed._engine_id)
    async with scripted() as engine, worker(store, engine):
        return await ended(store, turn.response.id)


async def at_rest(role: Worker, timeout: float = 60.0) -> None:
    """Wait until no turn is under way (one wants idle work after its end is stored) and no idle work is left."""
    parts = role._parts
    async with asyncio.timeout(timeout):
        while role._running or not (parts.prefixes.idle and parts.compactor.idle):
            await asyncio.sleep(0.005)


def text_of(records: list[Record]) -> str:
    """The text of all deltas."""
    return "".join(record.body.text for record in records if isinstance(record.body, Delta))


def again(turn: NewTurn) -> NewTurn:
    """The same question as a new response."""
    fresh = replace(turn.response, id=identifier("resp"), item_id=identifier("msg"))
    return replace(turn, response=fresh)
