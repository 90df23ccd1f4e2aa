"""GET /metrics: what the engines do, and how this web process fares, for Prometheus.

The engines' figures are their own, read from the store: any web process shows all of them, so scrape one. Counters
begin at 0 with each engine process; the label `engine` changes with it. What a web process says of itself has the label
`web`: behind one address each scrape tells of the one that answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from chatserver.errors import Unavailable
from chatserver.ports.registry import TTFT_BOUNDS, EngineReport, EngineState, ExpertLoad, Registry
from chatserver.service.web.pulse import LAG_BOUNDS, Pulse, Vitals
from chatserver.transports.lasting import CONNECTION

STORE_TIMEOUT = 2.0
"""Seconds in which the store must answer."""


def routes(registry: Registry, pulse: Pulse) -> list[Route]:
    """Return the route; it tells nothing of any tenant."""

    async def metrics(request: Request) -> Response:
        try:
            async with asyncio.timeout(STORE_TIMEOUT):
                engines = await registry.engines()
                experts = await registry.experts([engine.engine_id for engine in engines])
        except TimeoutError:
            raise Unavailable("The store does not answer.", retry_after=STORE_TIMEOUT) from None
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        shown = CollectorRegistry(auto_describe=False)
        shown.register(_Figures(engines, experts))
        shown.register(_OwnFigures(pulse.vitals(), request.scope[CONNECTION].doors()))
        return Response(encode(shown), headers={"content-type": content_type})

    return [Route("/metrics", metrics, methods=["GET"])]


class _Figures:
    """Makes one scrape's metrics of the engines' reports."""

    def __init__(self, engines: Sequence[EngineReport], experts: Mapping[str, ExpertLoad]) -> None:
        self._engines = engines
        self._experts = experts

    def collect(self) -> Iterator[Metric]:
        """Yield every family; prometheus_client calls it."""
        yield from self._of_engines()
        yield from self._of_work()
        yield from self._of_experts()

    def _of_engines(self) -> Iterator[Metric]:
        ready = _gauge("engine_ready", "1 if the engine takes answers", "model")
        running = _gauge("engine_running_answers", "Answers that the engine works on")
        queued = _gauge("engine_queued_requests", "Requests that wait inside the engine")
        used = _gauge("engine_kv_used_tokens", "Tokens of the KV pool that running answers hold")
        cached = _gauge(
            "engine_kv_cached_tokens", "Tokens of the KV pool that hold prefixes; they can be evicted"
        )
        leaked = _gauge("engine_kv_leaked_tokens", "Tokens of the KV pool that belong to nobody: expect 0")
        size = _gauge("engine_kv_tokens", "Size of the KV pool in tokens")
        for engine in self._engines:
            model = engine.model.name if engine.model else ""
            ready.add_metric((engine.engine_id, model), engine.state is EngineState.READY)
            running.add_metric((engine.engine_id,), engine.running)
            queued.add_metric((engine.engine_id,), engine.queued)
            used.add_metric((engine.engine_id,), engine.kv_used)
            cached.add_metric((engine.engine_id,), engine.kv_cached)
            leaked.add_metric((engine.engine_id,), engine.kv_leaked)
            size.add_metric((engine.engine_id,), engine.kv_tokens)
        yield from (ready, running, queued, used, cached, leaked, size)

    def _of_work(self) -> Iterator[Metric]:
        answers = _counter("answers", "Answers that have ended, by how", "status")
        read = _counter(
            "prompt_tokens",
            "Prompt tokens of answers that have ended, by whether the KV cache had them",
            "kv",
        )
        wrote = _counter("output_tokens", "Tokens that were written of answers that have ended")
        ttft = HistogramMetricFamily(
            "chatserver_ttft_seconds",
            "From a request's acceptance to the first token, waiting included",
            labels=["engine"],
        )
        for engine in self._engines:
            name, work = engine.engine_id, engine.work
            for status, count in sorted(work.answers.items()):
                answers.add_metric((name, status), count)
            read.add_metric((name, "hit"), work.cached)
            read.add_metric((name, "miss"), work.prompt - work.cached)
            wrote.add_metric((name,), work.output)
            within = zip((*map(str, TTFT_BOUNDS), "+Inf"), accumulate(work.ttft), strict=True)
            ttft.add_metric((name,), list(within), sum_value=work.ttft_seconds)
        yield from (answers, read, wrote, ttft)

    def _of_experts(self) -> Iterator[Metric]:
        given = _counter(
            "expert_tokens", "Token-expert pairs given to the experts of a rank, by layer", "layer", "rank"
        )
        ranks = _gauge("expert_rank_imbalance", "Load of a layer's busiest rank over the mean", "layer")
        single = _gauge("expert_imbalance", "Load of a layer's busiest expert over the mean", "layer")
        whole = _gauge(
            "expert_rank_imbalance_overall",
            "Load of the busiest ranks, summed over the layers, over the sum of the means",
        )
        for engine, load in self._experts.items():
            whole.add_metric((engine,), load.rank_imbalance)
            for layer in load.layers:
                number = str(layer.layer)
                ranks.add_metric((engine, number), layer.rank_imbalance)
                single.add_metric((engine, number), layer.expert_imbalance)
                for rank, pairs in enumerate(layer.ranks):
                    given.add_metric((engine, number, str(rank)), pairs)
        yield from (given, ranks, single, whole)


class _OwnFigures:
    """Makes one scrape's metrics of what this process is like. Those of `process_` are named as everywhere."""

    def __init__(self, vitals: Vitals, doors: Mapping[str, int]) -> None:
        self._vitals = vitals
        self._doors = doors

    def collect(self) -> Iterator[Metric]:
        """Yield every family; prometheus_client calls it."""
        vitals, web = self._vitals, self._vitals.web_id
        connections = GaugeMetricFamily(
            "chatserver_web_connections",
            "Open connections, by door; http: those that are idle, too",
            labels=("web", "door"),
        )
        for door, count in self._doors.items():
            connections.add_metric((web, door), count)
        readers = GaugeMetricFamily(
            "chatserver_web_readers", "Readers of answers that are attached here", labels=("web",)
        )
        readers.add_metric((web,), vitals.readers)
        cpu = CounterMetricFamily(
            "process_cpu_seconds", "CPU time of this process, user and system", labels=("web",)
        )
        cpu.add_metric((web,), vitals.cpu)
        lag = HistogramMetricFamily(
            "chatserver_web_loop_lag_seconds",
            "How late the event loop is, looked at regularly",
            labels=("web",),
        )
        within = zip((*map(str, LAG_BOUNDS), "+Inf"), accumulate(vitals.lag), strict=True)
        lag.add_metric((web,), list(within), sum_value=vitals.lag_seconds)
        yield from (connections, readers, cpu, lag)
        if vitals.resident is not None:
            memory = GaugeMetricFamily(
                "process_resident_memory_bytes", "Memory of this process", labels=("web",)
            )
            memory.add_metric((web,), vitals.resident)
            yield memory


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"chatserver_{name}", text, labels=("engine", *labels))


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"chatserver_{name}", text, labels=("engine", *labels))
