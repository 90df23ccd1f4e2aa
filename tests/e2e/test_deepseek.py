"""DeepSeek-V3's architecture on two ranks (TP 2 x EP 2) under the whole program, driven by the openai SDK."""

import os
import signal
import time

import httpx
import psutil
import pytest
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families

from tests.program import Program

pytestmark = [pytest.mark.e2e, pytest.mark.sglang]

MODEL = "tiny-deepseek-v3"
STORY = {"model": MODEL, "input": "Tell me of the sea.", "temperature": 0, "max_output_tokens": 60}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Run the program as `make serve MODEL=tiny-deepseek-v3 PROFILE=cpu-tp2-ep2` does."""
    folder = tmp_path_factory.mktemp("deepseek") / "data"
    with Program(folder, model=MODEL, CHATSERVER_PROFILE="cpu-tp2-ep2", CHATSERVER_CONTEXT="2048") as program:
        program.wait_ready()
        yield program


@pytest.fixture
def client(program) -> OpenAI:
    """Return the official client."""
    return OpenAI(base_url=f"{program.url}/v1", api_key="unused", timeout=180, max_retries=0)


def ranks_of(program) -> list[psutil.Process]:
    """Return the scheduler processes of the engine."""
    children = psutil.Process(program.pid("engine")).children()
    return [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]


def test_a_conversation_on_two_ranks_reuses_its_prefix(client):
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


def test_a_killed_rank_does_not_end_the_answer(program, client):
    """kill -9 of one of two ranks in mid-answer: the open stream pauses, then brings the rest of the same answer."""
    expected = client.responses.create(**STORY).output_text
    text, killed, positions = "", None, []
    for event in client.responses.create(**STORY, stream=True):
        positions.append(event.sequence_number)
        if event.type == "response.output_text.delta":
            text += event.delta
            if killed is None and len(positions) > 15:
                ranks = ranks_of(program)
                assert len(ranks) == 2
                killed = ranks[1].pid
                os.kill(killed, signal.SIGKILL)
    assert killed is not None
    assert event.type in ("response.completed", "response.incomplete"), event
    assert text == expected == event.response.output_text
    assert positions == sorted(set(positions))
    assert killed not in [rank.pid for rank in ranks_of(program)]


def test_expert_load_is_at_metrics(program, client):
    """Each layer with experts has both ranks, and the imbalance is what the counts say."""
    client.responses.create(**STORY)
    deadline = time.monotonic() + 20
    while not (given := samples(program, "chatserver_expert_tokens_total")):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert {(labels["layer"], labels["rank"]) for labels, _ in given} == {(n, r) for n in "123" for r in "01"}
    told = {labels["layer"]: value for labels, value in samples(program, "chatserver_expert_rank_imbalance")}
    for layer in "123":
        counts = [value for labels, value in given if labels["layer"] == layer]
        assert 1.0 <= told[layer] <= 2.0
        assert all(count > 0 for count in counts)
    ((_, overall),) = samples(program, "chatserver_expert_rank_imbalance_overall")
    assert 1.0 <= overall <= 2.0


def samples(program, name: str) -> list[tuple[dict[str, str], float]]:
    """Return (labels, value) of one metric."""
    text = httpx.get(f"{program.url}/metrics", timeout=10).text
    return [
        (sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    ]
