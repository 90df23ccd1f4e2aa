"""Cost of the front door per request: key, limits and validation, on a real store.

    request ──> key ──> one request of its limits ──> validation ──> tokens, place, money ──> begin (not the door's)
               ‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾ measured

The whole application answers, called in this process without sockets, one request at a time; clocks stand around the
four steps. The arms take turns in each round: no key (loopback), a static key, a stored key with every limit; each
with a short request and with a history of 32 messages. Goal: p50 ≤ 1 ms for each.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import uvloop

from chatserver.adapters.valkey import ValkeyStore
from chatserver.app.web import chat_on
from chatserver.domain.access import ApiKey, Limits, new_token
from chatserver.domain.money import PICOS, Price
from chatserver.ports.access import Deed
from chatserver.ports.registry import EngineReport, EngineState, ServedModel
from chatserver.service.web.admission import Ticket
from chatserver.service.web.hub import Hub
from chatserver.service.web.prices import Prices
from chatserver.settings import Settings
from chatserver.transports import responses
from chatserver.transports.auth import Keys
from chatserver.transports.http import create_app
from tests.bench.report import keep, percentile, table
from tests.stores import running_store

ROUNDS = 5
PER_ROUND = 200
GOAL_MS = 1.0
STEPS = ("key", "request", "validation", "reservation")
STATIC = "a-static-key-of-the-bench"
MODEL = ServedModel("bench", (), 8192)
BODIES = {
    "short": {"input": "How are you today?"},
    "32 messages": {"input": [{"role": "user", "content": "word " * 100}] * 32},
}


class Clocks:
    """Milliseconds of each step of the request that runs."""

    def __init__(self) -> None:
        self.now: dict[str, float] = defaultdict(float)

    @contextmanager
    def around(self, owner: Any, name: str, step: str) -> Iterator[None]:
        """Time every call of a function or coroutine function of `owner`."""
        inner: Callable[..., Any] = getattr(owner, name)

        async def timed(*args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return await inner(*args, **options)
            finally:
                self.now[step] += (time.perf_counter() - started) * 1000

        def timed_at_once(*args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return inner(*args, **options)
            finally:
                self.now[step] += (time.perf_counter() - started) * 1000

        setattr(owner, name, timed if asyncio.iscoroutinefunction(inner) else timed_at_once)
        try:
            yield
        finally:
            setattr(owner, name, inner)


@asynccontextmanager
async def serving(store: ValkeyStore, settings: Settings):
    """A client of the application, in this process."""
    hub = Hub(store.tapes, store.signals, "web_bench")
    chat = chat_on(store, hub, settings, Prices({"bench": Price(70_000, 270_000, 1_100_000)}))
    app = create_app(chat, hub, store.registry, settings, access=store.access, accounts=store.accounts)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        yield client


async def stored_key(store: ValkeyStore) -> str:
    """A key with every limit, none of which this bench meets."""
    key_id, token, kept = new_token("acme", os.urandom(7), os.urandom(32))
    limits = Limits(10_000_000, 100_000_000, 1000, 1000 * 10**PICOS)
    await store.access.create(
        ApiKey(key_id, "acme", kept, limits=limits), Deed(0.0, "bench", "create", "", "")
    )
    return token


async def measured(
    client: httpx.AsyncClient, clocks: Clocks, body: dict[str, Any], token: str | None
) -> list[dict[str, float]]:
    """Ask, stop each answer before an engine has it, and return the steps' times of each request."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    found = []
    for _ in range(PER_ROUND):
        clocks.now.clear()
        answer = await client.post("/v1/responses", json=body | {"background": True}, headers=headers)
        found.append(dict(clocks.now))
        assert answer.status_code == 200, answer.text
        stopped = await client.post(f"/v1/responses/{answer.json()['id']}/cancel", headers=headers)
        assert stopped.json()["status"] == "cancelled", stopped.text
    return found


async def run() -> dict[str, list[dict[str, float]]]:
    """Run the arms in turns; return the steps' times of each request, by arm."""
    clocks = Clocks()
    with (
        clocks.around(Keys, "caller", "key"),
        clocks.around(Ticket, "enter", "request"),
        clocks.around(Ticket, "reserve", "reservation"),
        clocks.around(responses, "load", "validation"),
        clocks.around(responses.wire, "parse", "validation"),
    ):
        return await _run(clocks)


async def _run(clocks: Clocks) -> dict[str, list[dict[str, float]]]:
    samples: dict[str, list[dict[str, float]]] = defaultdict(list)
    with running_store() as running, running_store() as keyless:
        store, empty = await ValkeyStore.open(running.url), await ValkeyStore.open(keyless.url)
        for one in (store, empty):
            report = EngineReport("eng_bench", EngineState.READY, "ready", time.time(), MODEL)
            await one.registry.put(report, ttl=3600)
        token = await stored_key(store)
        settings = Settings(api_keys=(("team", STATIC),))
        async with serving(store, settings) as keyed, serving(empty, Settings()) as loopback:
            arms = (("no key", loopback, None), ("static key", keyed, STATIC), ("stored key", keyed, token))
            for round_number in range(ROUNDS + 1):
                for name, client, key in arms:
                    for size, body in BODIES.items():
                        times = await measured(client, clocks, body, key)
                        if round_number:  # the first one warms up
                            samples[f"{name}, {size}"] += times
            await store.accounts.settle()
        await store.close()
        await empty.close()
    return samples


def _tell(samples: dict[str, list[dict[str, float]]]) -> None:
    rows, figures = [], {}
    for arm, times in samples.items():
        totals = [sum(one.values()) for one in times]
        middle = {step: percentile([one.get(step, 0.0) for one in times], 0.5) for step in STEPS}
        whole = sum(middle.values()) or 1.0
        shares = [f"{middle[step]:.3f} ({100 * middle[step] / whole:.0f} %)" for step in STEPS]
        p50, p99 = percentile(totals, 0.5), percentile(totals, 0.99)
        rows.append((arm, *shares, f"{p50:.3f}", f"{p99:.3f}", "yes" if p50 <= GOAL_MS else "NO"))
        figures[arm] = {"steps_p50_ms": middle, "p50_ms": p50, "p99_ms": p99, "requests": len(times)}
    title = f"Front door, milliseconds per request (median; goal: p50 ≤ {GOAL_MS:g})"
    print(table(title, ("arm", *STEPS, "p50", "p99", "met"), rows))
    print(f"kept in {keep('door', figures)}")


if __name__ == "__main__":
    _tell(uvloop.run(run()))
