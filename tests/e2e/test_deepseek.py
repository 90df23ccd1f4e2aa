"""DeepSeek-V3's architecture under the whole program, on one rank and on two (TP 2 x EP 2), through the openai SDK."""

import os
import signal
import time

import httpx
import pytest
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families

from tests.program import Program

pytestmark = [pytest.mark.e2e, pytest.mark.sglang]

MODEL = "tiny-deepseek-v3"
STORY = {
    "model": MODEL,
    "input": "Tell me of the sea.",
    "temperature": 0,
    "max_output_tokens": 250,
    "extra_body": {"ignore_eos": True},
}

PROFILES = {"one rank": {}, "TP 2 x EP 2": {"CHATSERVER_PROFILE": "cpu-tp2-ep2"}}


@pytest.fixture(scope="module", params=PROFILES)
def spread(request) -> str:
    """Return each spread in turn."""
    return request.param


@pytest.fixture
def count(spread) -> int:
    """Return how many ranks there are."""
    return 2 if "2" in spread else 1


@pytest.fixture(scope="module")
def program(spread, tmp_path_factory):
    """Run the program as `make serve MODEL=tiny-deepseek-v3` does, the second time with PROFILE=cpu-tp2-ep2."""
    folder = tmp_path_factory.mktemp("deepseek") / "data"
    with Program(folder, model=MODEL, CHATSERVER_CONTEXT="2048", **PROFILES[spread]) as program:
        program.wait_ready()
        yield program


@pytest.fixture
def client(program) -> OpenAI:
    """Return the official client."""
    return OpenAI(base_url=f"{program.url}/v1", api_key="unused", timeout=180, max_retries=0)


def test_a_conversation_reuses_its_prefix(client):
    """Three turns: each finds all of the turns before it in the cache."""
    conversation = client.conversations.create()
    before = None
    for question in ("One?", "Two?", "Three?"):
        answer = client.responses.create(
            model=MODEL, conversation=conversation.id, input=question, temperature=0, max_output_tokens=8
        )
        if before is not None:
            assert answer.usage.input_tokens_details.cached_tokens >= before.total_tokens - 1
        before = answer.usage


def test_a_killed_rank_does_not_end_the_answer(program, client, count):
    """kill -9 of the last rank in mid-answer: the open stream says so, then brings the rest of the same answer."""
    expected = client.responses.create(**STORY).output_text
    text, killed, positions = "", None, []
    killed_at = told_at = 0.0
    for event in client.responses.create(**STORY, stream=True):
        positions.append(event.sequence_number)
        if (event.model_extra or {}).get("recovery", {}).get("state") == "interrupted":
            told_at = time.monotonic()
        if event.type == "response.output_text.delta":
            text += event.delta
            if killed is None and len(positions) > 15:
                ranks = program.schedulers()
                assert len(ranks) == count
                killed = ranks[-1].pid
                os.kill(killed, signal.SIGKILL)
                killed_at = time.monotonic()
    assert killed is not None and 0 < told_at - killed_at < 2
    assert event.type in ("response.completed", "response.incomplete"), event
    assert text == expected == event.response.output_text
    assert positions == sorted(set(positions))
    assert killed not in [rank.pid for rank in program.schedulers()]


def test_a_rank_that_dies_while_the_engine_starts(program, client, count):
    """The engine is killed, and the next one's rank, too, before it is ready: a third life answers."""
    if count == 1:
        pytest.skip("one more start; two ranks are the harder case")
    old = program.kill("engine")
    lost = program.wait_replaced("engine", old, 60)
    deadline = time.monotonic() + 120
    while len(ranks := program.schedulers()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ranks[-1].kill()
    program.wait_replaced("engine", lost, 120)
    assert client.responses.create(**STORY).usage.output_tokens == 250


def test_expert_load_is_at_metrics(program, client, count):
    """Each layer with experts has every rank, and the imbalance is what the counts say: the most over the mean."""
    client.responses.create(**STORY)
    deadline = time.monotonic() + 60
    while not (found := samples(program)).get("chatserver_expert_tokens_total"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    given: dict[str, dict[str, float]] = {}
    for labels, value in found["chatserver_expert_tokens_total"]:
        given.setdefault(labels["layer"], {})[labels["rank"]] = value
    assert {layer: set(ranks) for layer, ranks in given.items()} == {n: set("01"[:count]) for n in "123"}
    told = {labels["layer"]: value for labels, value in found["chatserver_expert_rank_imbalance"]}
    for layer, ranks in given.items():
        assert all(value > 0 for value in ranks.values())
        assert told[layer] == pytest.approx(max(ranks.values()) * count / sum(ranks.values()))
    busiest, mean = (
        sum(of(ranks.values()) for ranks in given.values()) for of in (max, lambda v: sum(v) / count)
    )
    ((_, overall),) = found["chatserver_expert_rank_imbalance_overall"]
    assert overall == pytest.approx(busiest / mean)
    experts = {labels["layer"]: value for labels, value in found["chatserver_expert_imbalance"]}
    assert experts.keys() == set("123")
    assert all(
        value >= told[layer] for layer, value in experts.items()
    )  # a rank's load is a mean of its experts'


def samples(program) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return (labels, value) of every sample of one look at the metrics, by name."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    text = httpx.get(f"{program.url}/metrics", timeout=10).text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found
