"""What those who operate it ask: whether it lives, whether it is ready, its figures."""

from __future__ import annotations

import asyncio
import time

from prometheus_client.parser import text_string_to_metric_families

from chatserver.ports.registry import EngineReport, EngineState, ExpertLoad, LayerLoad, Work
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
