"""What those who operate it ask: whether it lives, whether it is ready, its figures."""

from __future__ import annotations

import asyncio
import json
import time

from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect

from chatserver.ports.registry import EngineReport, EngineState, ExpertLoad, LayerLoad, Work
from chatserver.service.web import pulse
from tests.fakes import MODEL


async def test_readiness(memory):
    http = memory.http()
    assert (await http.get("/livez")).json() == {"status": "ok"}
    async with asyncio.timeout(60):
        while (await http.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.01)
    ready = (await http.get("/readyz")).json()
    assert ready["status"] == "ready" and ready["engines"][0]["state"] == "ready"
    loading = EngineReport("eng_2", EngineState.LOADING, "loading weights", time.time() - 3, MODEL)
    memory.store.reports = {"eng_2": loading}
    response = await http.get("/readyz")
    assert response.status_code == 503 and "loading weights" in response.json()["reason"]
    assert response.json()["engines"][0]["seconds"] >= 3
    memory.store.down = True
    response = await http.get("/readyz")
    assert response.status_code == 503 and "store" in response.json()["reason"]
    assert (await http.get("/livez")).status_code == 200
    memory.store.down = False


WORK = Work({"failed": 1, "completed": 3}, 100, 60, 25, (1, 0, 2, *[0] * 8, 1), 75.5)


async def test_metrics(memory):
    """Every engine's figures, its work and its experts' load are there, in Prometheus's text and in OpenMetrics."""
    load = ExpertLoad((LayerLoad(1, (30, 10), 1.5, 4.0), LayerLoad(2, (20, 20), 1.0, 2.0)), 1.25)
    memory.store.reports = {
        "eng_1": EngineReport(
            "eng_1", EngineState.READY, "ready", 1.0, MODEL, 2, 1, 300, 4096, 1024, 7, WORK
        ),
        "eng_2": EngineReport("eng_2", EngineState.LOADING, "weights", 1.0),
    }
    memory.store.loads = {"eng_1": load, "eng_gone": load}
    http = memory.http()
    response = await http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
    assert {key: value for key, value in found.items() if "expert" in key[0]} == {
        ("chatserver_expert_tokens_total", "eng_1", "1", "0"): 30,
        ("chatserver_expert_tokens_total", "eng_1", "1", "1"): 10,
        ("chatserver_expert_tokens_total", "eng_1", "2", "0"): 20,
        ("chatserver_expert_tokens_total", "eng_1", "2", "1"): 20,
        ("chatserver_expert_rank_imbalance", "eng_1", "1"): 1.5,
        ("chatserver_expert_rank_imbalance", "eng_1", "2"): 1.0,
        ("chatserver_expert_imbalance", "eng_1", "1"): 4.0,
        ("chatserver_expert_imbalance", "eng_1", "2"): 2.0,
        ("chatserver_expert_rank_imbalance_overall", "eng_1"): 1.25,
    }
    assert found["chatserver_engine_ready", "eng_1", "tiny"] == 1
    assert found["chatserver_engine_ready", "eng_2", ""] == 0
    assert found["chatserver_engine_running_answers", "eng_1"] == 2
    assert found["chatserver_engine_queued_requests", "eng_1"] == 1
    assert found["chatserver_engine_kv_used_tokens", "eng_1"] == 300
    assert found["chatserver_engine_kv_tokens", "eng_1"] == 4096
    assert found["chatserver_engine_kv_cached_tokens", "eng_1"] == 1024
    assert found["chatserver_engine_kv_leaked_tokens", "eng_1"] == 7
    assert found["chatserver_answers_total", "eng_1", "completed"] == 3
    assert found["chatserver_answers_total", "eng_1", "failed"] == 1
    assert found["chatserver_prompt_tokens_total", "eng_1", "hit"] == 60
    assert found["chatserver_prompt_tokens_total", "eng_1", "miss"] == 40
    assert found["chatserver_output_tokens_total", "eng_1"] == 25
    assert found["chatserver_ttft_seconds_bucket", "eng_1", "0.05"] == 1
    assert found["chatserver_ttft_seconds_bucket", "eng_1", "51.2"] == 3
    assert found["chatserver_ttft_seconds_bucket", "eng_1", "+Inf"] == 4
    assert found["chatserver_ttft_seconds_count", "eng_1"] == 4
    assert found["chatserver_ttft_seconds_sum", "eng_1"] == 75.5
    modern = await http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert modern.headers["content-type"].startswith("application/openmetrics-text")
    assert modern.text.endswith("# EOF\n")
    memory.store.down = True
    refused = await http.get("/metrics")
    assert refused.status_code == 503 and refused.headers["retry-after"]
    memory.store.down = False


async def figures(http) -> dict[tuple[str, ...], float]:
    """What one scrape tells of the web process itself."""
    found = text_string_to_metric_families((await http.get("/metrics")).text)
    return {
        (sample.name, *(value for name, value in sample.labels.items() if name != "web")): sample.value
        for family in found
        for sample in family.samples
        if "web" in sample.labels
    }


async def test_a_web_process_tells_of_itself(memory, monkeypatch):
    """Connections by their door, readers, memory, CPU time, and a loop that was held up: all by its name."""
    monkeypatch.setattr(pulse, "INTERVAL", 0.01)
    memory.engine.write.clear()
    lag = "chatserver_web_loop_lag_seconds"
    http, ask = memory.http(), {"model": "tiny", "input": "Hi", "stream": True}
    async with (
        http.stream("POST", "/v1/responses", json=ask) as first,
        http.stream("POST", "/v1/responses", json=ask) as second,
        connect(memory.url.replace("http", "ws") + "/v1/responses") as socket,
    ):
        assert first.status_code == second.status_code == 200
        await socket.send(json.dumps({"type": "response.create", "model": "tiny", "input": "Hi"}))
        assert json.loads(await socket.recv())["type"] == "response.created"
        async with asyncio.timeout(60):
            while (before := await figures(http))[f"{lag}_count",] < 2:  # the first look was far off
                await asyncio.sleep(0.01)
        time.sleep(0.25)
        await asyncio.sleep(0.02)
        after = await figures(http)
        memory.engine.write.set()
    connections = "chatserver_web_connections"
    assert [before[connections, door] for door in ("http", "sse", "websocket")] == [1, 2, 1]
    assert before["chatserver_web_readers",] == 3
    assert 10 * 2**20 < before["process_resident_memory_bytes",] < 64 * 2**30
    assert 0 < before["process_cpu_seconds_total",] <= after["process_cpu_seconds_total",]
    assert after[f"{lag}_sum",] - before[f"{lag}_sum",] > 0.2
    late = [found[f"{lag}_bucket", "+Inf"] - found[f"{lag}_bucket", "0.2"] for found in (before, after)]
    assert late[1] > late[0]
    async with asyncio.timeout(60):
        while (await figures(http))[connections, "sse"] or (await figures(http))[connections, "websocket"]:
            await asyncio.sleep(0.01)
    assert (await figures(http))["chatserver_web_readers",] == 0
    assert f'web="{memory.hub.web_id}"' in (await http.get("/metrics")).text
