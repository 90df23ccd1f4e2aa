"""The KV cache through the whole program with the real engine: what is said to be warm is, and answers replay."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time

import httpx
import pytest
from websockets.sync.client import connect

from chatserver.adapters import embedded
from chatserver.adapters.valkey import ValkeyStore
from chatserver.service.operation.again import send_again
from chatserver.service.web.warmth import PATIENCE
from tests.program import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.sglang]

ASK = {"model": "smollm2-135m-instruct", "temperature": 0, "max_output_tokens": 16, "ignore_eos": True}
SMALL = {"type": "auto", "token_limits": {"post_instructions": 150}}
PAGE = 1
REST = 60.0
"""Seconds within which idle work must have made a prefix."""


@pytest.fixture
def web(real):
    with httpx.Client(base_url=f"{real.url}/v1", timeout=120) as client:
        yield client


def asked(web, **fields) -> dict:
    return web.post("/responses", json={**ASK, **fields}).raise_for_status().json()


def cache_of(web, conversation: str) -> dict:
    until = time.monotonic() + REST
    while (found := web.get(f"/conversations/{conversation}/cache").raise_for_status().json())[
        "state"
    ] != "known":  # an engine that is busy is not waited for
        assert time.monotonic() < until
    assert found["page_tokens"] == PAGE
    assert found["prefill_tokens"] == found["prefix_tokens"] - found["warm_tokens"] >= 0
    return found


def at_rest(web, conversation: str) -> dict:
    """What is told once idle work has made all but the last token that was written, and makes no more."""
    until, before = time.monotonic() + REST, {}
    while (found := cache_of(web, conversation)) != before or found["prefill_tokens"] > 8:
        if time.monotonic() > until:
            break
        before = found
        time.sleep(0.1)
    return found


def freed(web, path: str) -> float:
    """Remove what is at a path; return how many tokens of KV that is said to have freed.

    It is infinity if nothing is said because no engine told so in time: the machine was held up for so long.
    """
    began = time.monotonic()
    found = web.delete(path).raise_for_status().json()["freed_tokens"]
    if found is None:
        assert time.monotonic() - began >= PATIENCE
    return math.inf if found is None else found


def off_by(told: dict, answer: dict) -> int:
    """By how many tokens the cache endpoint was wrong about what a turn computed beside its message and the cue.

    A message may begin as another conversation's did: what it finds of that in the cache nobody could foretell.
    """
    context = answer["context"]
    new = context["sent"] - context["spans"][-1][0]
    found = max(0, context["cached"] - told["prefix_tokens"])
    return abs(told["prefill_tokens"] + new - found - context["computed"])


def conversation_of(web, *texts: str) -> str:
    items = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    return web.post("/conversations", json={"items": items}).raise_for_status().json()["id"]


def test_what_is_told_of_the_cache_is_so(web):
    """Within one page: before and after turns, across cuts, after an item, the cached prefix, and all was deleted."""
    made, cuts, answers = conversation_of(web), set(), []
    for number in range(9):
        told = at_rest(web, made) if number else cache_of(web, made)
        text = f"Message {number} tells of the tide, the moon, the harbour and of {number} ships."
        answer = asked(web, conversation=made, input=text, truncation=SMALL)
        assert off_by(told, answer) <= PAGE, (number, told, answer["context"])
        assert told["cut"] == answer["context"]["cut"]
        assert told["prefill_tokens"] <= 8 or not number, "no turn pays for a cut"
        cuts.add(answer["context"]["cut"])
        answers.append(answer)
    assert len(cuts) >= 3

    web.delete(f"/conversations/{made}/items/{answers[-1]['output'][0]['id']}").raise_for_status()
    told = cache_of(web, made)
    answer = asked(web, conversation=made, input="And again?", truncation=SMALL)
    assert off_by(told, answer) <= PAGE

    assert freed(web, f"/conversations/{made}/cache") > 100
    told = cache_of(web, made)
    answer = asked(web, conversation=made, input="Once more?", truncation=SMALL)
    assert told["prefill_tokens"] > 50 and off_by(told, answer) <= PAGE

    fork = web.post(f"/conversations/{made}/fork", json={}).raise_for_status().json()["id"]
    told = at_rest(web, fork)
    assert off_by(told, asked(web, conversation=fork, input="In the fork?", truncation=SMALL)) <= PAGE

    held = at_rest(web, fork)["warm_tokens"]
    assert freed(web, f"/conversations/{made}") > 0 and held > 30
    assert cache_of(web, fork)["warm_tokens"] == held, "the fork still holds what they share"
    assert web.get(f"/conversations/{made}/cache").status_code == 404
    # all but the head, which other conversations share
    assert freed(web, f"/conversations/{fork}") > held - 30


@pytest.mark.parametrize("sign", ["typing", "opening"])
def test_a_sign_of_life_makes_the_prefix(web, real, sign):
    """What a client wrote into a conversation is cold; when its user opens it or types, it is made before any turn."""
    made = conversation_of(web, f"For {sign}, tell me of tides. " * 40, "They come and go.")
    cold = cache_of(web, made)
    assert cold["prefill_tokens"] > 200
    if sign == "opening":
        web.get(f"/conversations/{made}/items").raise_for_status()
    else:
        with connect(real.url.replace("http", "ws") + "/v1/responses") as socket:
            socket.send(json.dumps({"type": "input.typing", "conversation_id": made}))
    told = at_rest(web, made)
    assert told["prefill_tokens"] == 0 and told["prefix_tokens"] == cold["prefix_tokens"]
    answer = asked(
        web, conversation=made, input="So?", truncation=SMALL | {"token_limits": {"post_instructions": 2000}}
    )
    assert off_by(told, answer) <= PAGE and answer["context"]["computed"] < 30


async def test_answers_replay_to_the_token(web, real):
    """At temperature 0: after a cut, a stop, a continuation, and with a summary in the place of what was dropped."""
    replayed = {}
    made, policy = conversation_of(web), {**SMALL, "compaction": True}
    for number in range(14):
        text = f"My {number}th wish is a boat with {number} sails and a bell."
        answer = asked(web, conversation=made, input=text, truncation=policy)
        if answer["context"]["cut"]:
            replayed["cut"] = answer
        if answer["context"]["summary"]:
            replayed["summary"] = answer
            break
        if answer["context"]["next_cut"] != answer["context"]["cut"]:
            _await_summary(web, made)
    replayed["stop"] = _stopped(web)
    replayed["continuation"] = asked_to_go_on(web, replayed["stop"]["id"])
    assert {"cut", "summary"} <= set(replayed)
    store = await ValkeyStore.open(embedded.url(real.data_dir))
    try:
        for what, answer in replayed.items():
            tenant = await store.turns.tenant_of(answer["id"])
            found = await send_again(store.conversations, store.turns, store.tapes, tenant, answer["id"])
            assert found.same is True, what
            assert (found.prompt, found.prompt_hash) == (
                answer["context"]["sent"],
                answer["context"]["prompt_hash"],
            )
    finally:
        await store.close()
    said = subprocess.run(
        [sys.executable, "-m", "chatserver", "replay", answer["id"], "--data-dir", str(real.data_dir)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "are the same" in said.stdout


def _await_summary(web, conversation: str) -> None:
    until = time.monotonic() + REST
    while time.monotonic() < until:
        items = web.get(f"/conversations/{conversation}/items?branches=all&order=asc&limit=100").json()[
            "data"
        ]
        if any(item["type"] == "compaction" for item in items):
            return
        time.sleep(0.1)
    raise AssertionError("no summary was written")


def _stopped(web) -> dict:
    """An answer that its user stopped after some tokens."""
    body = {**ASK, "input": "Tell me a story about a whale.", "max_output_tokens": 4000, "background": True}
    response_id = web.post("/responses", json=body).raise_for_status().json()["id"]
    with web.stream("GET", f"/responses/{response_id}?stream=true") as stream:
        for line in stream.iter_lines():
            if line.startswith("event: response.output_text.delta"):
                break
    web.post(f"/responses/{response_id}/cancel").raise_for_status()
    until = time.monotonic() + REST
    while (found := web.get(f"/responses/{response_id}").json())["status"] in ("queued", "in_progress"):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert found["status"] == "cancelled"
    return found


def asked_to_go_on(web, response_id: str) -> dict:
    return (
        web.post("/responses", json={"continue": response_id, "max_output_tokens": 12})
        .raise_for_status()
        .json()
    )
