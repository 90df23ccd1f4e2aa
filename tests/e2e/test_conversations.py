"""Conversations at their bounds, over the whole program: giants, thousands of items, odd characters, turns at once."""

from __future__ import annotations

import asyncio
import json
import time

import httpx
import pytest

pytestmark = pytest.mark.e2e

TURN = {
    "model": "scripted",
    "temperature": 0,
    "max_output_tokens": 5,
    "ignore_eos": True,
    "truncation": "auto",
}
ITEMS = 10_000
ADDED = 20


@pytest.fixture
def web(scripted):
    with httpx.Client(base_url=f"{scripted.url}/v1", timeout=120) as client:
        yield client


def conversation_of(web, *texts: str) -> str:
    items = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    return web.post("/conversations", json={"items": items}).raise_for_status().json()["id"]


def asked(web, **fields) -> httpx.Response:
    return web.post("/responses", json={**TURN, **fields})


def error_of(response: httpx.Response) -> dict:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def test_ten_thousand_items(web):
    """As long as they get: a turn is cut to the window, its ledger names all items, the next one is cached."""
    made = conversation_of(web)
    for start in range(0, ITEMS - 4, ADDED):
        batch = [
            {"role": ("user", "assistant")[n % 2], "content": f"Item {n} says something."}
            for n in range(start, min(start + ADDED, ITEMS - 4))
        ]
        web.post(f"/conversations/{made}/items", json={"items": batch}).raise_for_status()
    first = asked(web, conversation=made, input="And now?").raise_for_status().json()
    context = first["context"]
    assert len(context["kept"]) + len(context["dropped"]) == ITEMS - 3
    assert context["sent"] <= context["window"]
    second = asked(web, conversation=made, input="And then?").raise_for_status().json()
    usage = second["usage"]
    assert usage["input_tokens_details"]["cached_tokens"] >= usage["input_tokens"] - 40
    full = asked(web, conversation=made, input="One too many.")
    assert full.status_code == 409
    assert "10000" in error_of(full)["message"].replace(",", "")
    cache = web.get(f"/conversations/{made}/cache").raise_for_status().json()
    assert cache["prefill_tokens"] <= 40


def test_a_megabyte_in_one_message(web):
    """Refused in words that give the counts, or cut inside if that is allowed; the server answers others meanwhile."""
    made = conversation_of(web, "Hello", "Hi")
    giant = "All work and no play makes Jack a dull boy. "
    giant = (giant * 23_000)[:1_000_000]
    over = asked(web, conversation=made, input=giant + "!")
    assert (over.status_code, error_of(over)["code"]) == (400, "string_above_max_length")
    refused = asked(web, conversation=made, input=giant)
    error = error_of(refused)
    assert (refused.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "input")
    assert "8192 tokens" in error["message"] and "cut_inside" in error["message"]
    allowed = {"type": "auto", "cut_inside": True}
    answer = asked(web, conversation=made, input=giant, truncation=allowed).raise_for_status().json()
    trimmed = answer["context"]["trimmed"]
    assert trimmed["count"] > 100_000 and answer["context"]["sent"] <= 8192
    after = asked(web, conversation=made, input="So?", truncation=allowed).raise_for_status().json()
    assert after["context"]["trimmed"] == trimmed
    assert after["usage"]["input_tokens_details"]["cached_tokens"] >= answer["context"]["sent"]
    items = web.get(f"/conversations/{made}/items?order=asc").json()["data"]
    assert items[2]["content"][0]["text"] == giant, "what was said is kept whole"


ODD = "\u0000\u0001\u0007\u001b[31m\u007f\u0085\u2028\ufeff\uffff\U0001f600\u202eabc"


def test_control_characters_are_kept_as_they_are(web):
    """What JSON can carry is text: stored, sent, and read back the same."""
    made = conversation_of(web)
    asked(web, conversation=made, input=ODD).raise_for_status()
    items = web.get(f"/conversations/{made}/items?order=asc").json()["data"]
    assert items[0]["content"][0]["text"] == ODD
    assert asked(web, conversation=made, input="And?").raise_for_status().json()["status"] == "incomplete"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/conversations", b'{"items": [{"role": "user", "content": "a\\ud800b"}]}', "items[0].content"),
        (
            "/responses",
            b'{"model": "scripted", "input": [{"role": "user", "content": "\\udc00"}]}',
            "input[0].content",
        ),
        ("/conversations", b'{"items": [{"type": "hologram"}]}', "items[0].type"),
        ("/responses", b'{"model": "scripted", "input": [{"type": "hologram"}]}', "input[0].type"),
    ],
)
def test_what_is_no_text_or_no_item_is_named(web, path, body, param):
    """Lone surrogates and items of unknown type: a 400 that names the field."""
    refused = web.post(path, content=body, headers={"content-type": "application/json"})
    assert (refused.status_code, error_of(refused)["param"]) == (400, param)


@pytest.mark.parametrize(
    "method,path", [("GET", ""), ("GET", "/items"), ("GET", "/cache"), ("DELETE", ""), ("POST", "/fork")]
)
def test_an_unknown_conversation_is_a_404(web, method, path):
    """Whether the id has the right form or not."""
    made = conversation_of(web)
    for unknown in ("conv_nope", made[:-8] + "00000000", "x" * 3000):
        refused = web.request(method, f"/conversations/{unknown}{path}")
        assert refused.status_code == 404, refused.text
        assert error_of(refused)["code"] == "not_found"


async def test_turns_started_at_once_are_one_turn_and_conflicts(scripted):
    """Sixteen sends while one answer runs: it is answered, the others are told, and nothing of theirs is kept."""
    endless = {"max_output_tokens": 7000, "background": True}
    async with httpx.AsyncClient(base_url=f"{scripted.url}/v1", timeout=60) as client:
        for _ in range(3):
            made = (await client.post("/conversations", json={})).json()["id"]
            sent = [f"Question {n}" for n in range(16)]
            bodies = [{**TURN, **endless, "conversation": made, "input": text} for text in sent]
            answers = await asyncio.gather(*(client.post("/responses", json=body) for body in bodies))
            statuses = [answer.status_code for answer in answers]
            assert sorted(statuses) == [200] + [409] * 15
            running = f"/responses/{answers[statuses.index(200)].json()['id']}"
            async with client.stream("GET", running, params={"stream": "true"}) as stream:
                async for line in stream.aiter_lines():
                    if line.startswith("event: response.output_text.delta"):
                        break
            await client.post(f"{running}/cancel")
            await client.get(running, params={"stream": "true"})  # to its end
            items = (await client.get(f"/conversations/{made}/items?branches=all&order=asc")).json()["data"]
            assert [item["role"] for item in items] == ["user", "assistant"]
            assert items[0]["content"][0]["text"] == sent[statuses.index(200)]


async def test_typing_over_the_websocket_makes_the_prefix(scripted):
    """What a client wrote into a new conversation is prefilled when its user types, before any turn."""
    from websockets.asyncio.client import connect

    async with httpx.AsyncClient(base_url=f"{scripted.url}/v1", timeout=60) as client:
        items = [
            {"role": "user", "content": "Tell me of tides. " * 30},
            {"role": "assistant", "content": "They turn."},
        ]
        made = (await client.post("/conversations", json={"items": items})).json()["id"]
        cold = (await client.get(f"/conversations/{made}/cache")).json()
        assert cold["prefill_tokens"] > 50
        address = scripted.url.replace("http", "ws") + "/v1/responses"
        async with connect(address) as socket:
            await socket.send(json.dumps({"type": "input.typing", "conversation_id": made}))
            until = time.monotonic() + 60
            while time.monotonic() < until:
                found = (await client.get(f"/conversations/{made}/cache")).json()
                if found["prefill_tokens"] == 0:
                    break
                await asyncio.sleep(0.05)
        assert found["warm_tokens"] == found["prefix_tokens"]
        body = {**TURN, "conversation": made, "input": "So?"}
        usage = (await client.post("/responses", json=body)).json()["usage"]
        assert usage["input_tokens_details"]["cached_tokens"] >= found["prefix_tokens"]
