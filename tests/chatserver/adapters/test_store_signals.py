"""The contract of the ports `Signals` and `Registry`."""

from __future__ import annotations

import asyncio
import functools
from contextlib import aclosing
from dataclasses import replace

import pytest

from chatserver.adapters.valkey import ValkeyStore, connect, turn_steps
from chatserver.errors import Unavailable
from chatserver.ports.registry import EngineReport, EngineState, ExpertLoad, LayerLoad, ServedModel, Work
from chatserver.ports.tapes import Stop, Wake
from chatserver.ports.turns import LOOKS_AGAIN
from tests.chatserver.adapters.things import BOUND, NOW, SHARD, TENANT, turn
from tests.stores import running_store


async def test_engines_are_woken_by_new_and_by_returned_jobs(store: ValkeyStore) -> None:
    async with aclosing(store.signals.commands("eng-a")) as listening:  # type: ignore[type-var]
        assert await anext(listening) is None
        await store.turns.begin(turn(), queue_bound=BOUND)
        await store.turns.begin(turn(shard=9), queue_bound=BOUND)
        heard = {await anext(listening) for _ in range(2)}  # of two servers of a cluster, either may be first
        assert heard == {Wake(SHARD), Wake(9)}
        await store.turns.claim("eng-b", lease=30, shard=9)
        await store.turns.release("eng-b")
        assert await anext(listening) == Wake(9)
        await store.turns.claim("eng-b", lease=0.001, shard=9)
        await asyncio.sleep(0.05)
        await store.turns.reap()
        assert await anext(listening) == Wake(9)


async def test_an_only_engine_that_looks_again_is_not_woken(
    store: ValkeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it has room and got something; then it is woken again, as it is where others may want the job."""
    monkeypatch.setattr(turn_steps, "LOOKS_AGAIN", 60.0)
    claim = functools.partial(store.turns.claim, "eng-a", lease=30, most=2)
    heard: asyncio.Queue[object] = asyncio.Queue()

    async def listen() -> None:
        async for command in store.signals.commands("eng-a"):
            heard.put_nowait(command)

    async def wakes(expected: bool = True) -> bool:
        await store.turns.begin(turn(), queue_bound=BOUND)
        try:
            return await asyncio.wait_for(heard.get(), 60 if expected else 0.05) == Wake(SHARD)
        except TimeoutError:
            return False

    listening = asyncio.create_task(listen())
    assert await heard.get() is None
    assert await wakes()
    assert len(await claim()) == 1
    together = store.turns._client.together
    assert await wakes(expected=not together) is not together
    assert len(await claim()) == 1
    assert await claim() == []
    assert [await wakes(), await wakes()] == [True, True]
    assert len(await claim()) == 2  # it may be full now
    assert await wakes()
    assert len(await claim(engines=2)) == 1
    assert await wakes()
    monkeypatch.setattr(turn_steps, "LOOKS_AGAIN", LOOKS_AGAIN)
    assert len(await claim()) == 1
    await asyncio.sleep(1.5 * LOOKS_AGAIN)  # it did not come again: it may be gone
    assert await wakes()
    listening.cancel()


async def test_a_stop_goes_to_the_engine_that_holds_the_job(store: ValkeyStore) -> None:
    new = turn()
    async with (
        aclosing(store.signals.commands("eng-a")) as own,  # type: ignore[type-var]
        aclosing(store.signals.commands("eng-b")) as other,  # type: ignore[type-var]
    ):
        assert [await anext(own), await anext(other)] == [None, None]
        await store.turns.begin(new, queue_bound=BOUND)
        assert [await anext(own), await anext(other)] == [Wake(SHARD)] * 2
        await store.turns.claim("eng-a", lease=30, shard=SHARD)
        await store.turns.stop(TENANT, new.response.id, NOW)
        assert await anext(own) == Stop(new.response.id)
        await store.turns.begin(turn(), queue_bound=BOUND)
        assert await anext(other) == Wake(SHARD)


async def test_who_listens_is_known_until_it_stops(store: ValkeyStore) -> None:
    assert await store.signals.listening(["eng-a", "eng-b"]) == set()
    async with aclosing(store.signals.commands("eng-a")) as listening:  # type: ignore[type-var]
        assert await anext(listening) is None
        assert await store.signals.listening(["eng-a", "eng-b"]) == {"eng-a"}
    async with asyncio.timeout(60):
        while await store.signals.listening(["eng-a"]):
            await asyncio.sleep(0.01)


async def test_who_listens_is_not_guessed() -> None:
    """A store that does not answer has not said that nobody listens."""
    with running_store() as running:
        own = await ValkeyStore.open(running.url)
        running.kill()
        with pytest.raises(Unavailable):
            await own.signals.listening(["eng-a"])
        await own.close()


async def test_a_lost_connection_ends_a_subscription_and_a_new_one_can_follow() -> None:
    with running_store() as running:
        own = await ValkeyStore.open(running.url)
        listening = own.signals.bundles("web-a")
        assert await anext(listening) is None
        running.kill()
        with pytest.raises(Unavailable):
            await anext(listening)
        with pytest.raises(Unavailable):
            await anext(own.signals.commands("eng-a"))
        running.start()
        again = own.signals.bundles("web-a")
        assert await anext(again) is None
        await again.aclose()  # type: ignore[attr-defined]
        await own.close()


async def test_a_silent_peer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped process answers nothing and closes nothing; a living one that is merely quiet is kept."""
    monkeypatch.setattr(connect, "PING_AFTER", 0.5)
    with running_store() as running:
        own = await ValkeyStore.open(running.url)
        listening = own.signals.commands("eng-a")
        assert await anext(listening) is None
        waiting = asyncio.ensure_future(anext(listening))
        await asyncio.sleep(1.2)
        assert not waiting.done()
        running.pause()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(waiting, 60)
        running.resume()
        await own.close()


MODEL = ServedModel("m", ("alias",), 8192, NOW)
WORK = Work({"completed": 2}, 10, 5, 7, (2, *[0] * 11), 0.05)
REPORT = EngineReport("eng-a", EngineState.READY, "fine", 1.5, MODEL, 1, 2, 3, 4, work=WORK)


async def test_reports_expire_and_models_stay(store: ValkeyStore) -> None:
    registry = store.registry
    await registry.ping()
    assert await registry.engines() == [] and await registry.models() == []
    loading = EngineReport("eng-b", EngineState.LOADING, "weights", 2.0)
    await registry.put(loading, ttl=30)
    await registry.put(REPORT, ttl=30)
    assert await registry.engines() == [REPORT, loading]
    await registry.put(REPORT, ttl=0.05)
    async with asyncio.timeout(60):
        while await registry.engines() != [loading]:
            await asyncio.sleep(0.05)
    assert await registry.models() == [MODEL]
    await registry.put(replace(REPORT, model=replace(MODEL, context=9)), ttl=30)
    await registry.drop("eng-b")
    await registry.drop("unknown")
    assert [report.engine_id for report in await registry.engines()] == ["eng-a"]
    assert await registry.models() == [replace(MODEL, context=9)]


async def test_expert_load_comes_back_until_it_expires(store: ValkeyStore) -> None:
    """Each engine's own; engines without experts are left out."""
    registry = store.registry
    load = ExpertLoad((LayerLoad(1, (30, 10), 1.5, 4.0), LayerLoad(3, (2**60, 0), 2.0, 16.0)), 1.75)
    await registry.put_experts("eng-a", load, ttl=30)
    await registry.put_experts("eng-b", load, ttl=0.05)
    assert set(await registry.experts(["eng-a", "eng-b", "eng-c"])) >= {"eng-a"}
    await asyncio.sleep(0.1)
    assert await registry.experts(["eng-a", "eng-b", "eng-c"]) == {"eng-a": load}
    assert await registry.experts([]) == {}
