"""Bytes on the wire: headers, errors, limits, server-sent events, health, the page, keys."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from chatserver.errors import Forbidden, Unauthenticated
from chatserver.ports.registry import EngineReport, EngineState, ExpertLoad, LayerLoad, Work
from chatserver.service.web import follower, patience
from chatserver.transports import middleware, sse, static
from chatserver.transports.auth import Keys
from tests.chatserver.transports.conftest import running_web
from tests.fakes import MODEL, MemoryStore

ANSWER = "".join(f"w{i} " for i in range(20))
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
async def memory():
    """A web role in memory, for what no store can change."""
    store = MemoryStore()
    store.known_models.append(MODEL)
    async with running_web(store, max_body=20_000) as web:
        yield web


def error_of(response) -> dict:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"] and response.headers["content-type"] == "application/json"
    return error


def parse_sse(text: str) -> list[dict]:
    """The EventSource algorithm: fields of each event; comments are dropped."""
    events = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            events.append(dict(line.split(": ", 1) for line in lines))
    return events


async def test_chat_stream_has_only_unnamed_data(memory):
    response = await memory.http().post("/chat/completions", json=CHAT | {"stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache, no-transform"
    assert response.headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in response.headers
    events = parse_sse(response.text)
    assert all(set(event) == {"data"} for event in events) and events[-1]["data"] == "[DONE]"
    assert response.text.count("[DONE]") == 1


async def test_response_stream_has_ids_names_and_padding(memory):
    response = await memory.http().post("/v1/responses", json={"input": "Hi", "stream": True})
    assert response.text.startswith(":") and len(response.text.split("\n")[0]) >= 512
    events = parse_sse(response.text)
    for event in events:
        data = json.loads(event["data"])
        assert event["event"] == data["type"] and event["id"] == str(data["sequence_number"])


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_pings_are_bare_comment_lines_and_harmless(memory, monkeypatch, path):
    """A blank line after a comment kills the SDK once it has seen an id."""
    monkeypatch.setattr(sse, "PING", 0.02)
    memory.engine.write.clear()
    asyncio.get_running_loop().call_later(0.8, memory.engine.write.set)
    body = CHAT if "chat" in path else {"input": "Hi"}
    response = await memory.http().post(path, json=body | {"stream": True})
    assert response.text.count("\n: ping\n") > 3 and ": ping\n\n" not in response.text
    assert parse_sse(response.text)
    memory.engine.write.clear()
    asyncio.get_running_loop().call_later(0.8, memory.engine.write.set)
    client = memory.sdk()
    if "chat" in path:
        stream = await client.chat.completions.create(**CHAT, stream=True)
        assert "".join([c.choices[0].delta.content or "" async for c in stream]) == ANSWER
    else:
        events = [e async for e in await client.responses.create(input="Hi", stream=True)]
        assert events[-1].response.output_text == ANSWER


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_blank_lines_before_a_slow_json_answer(memory, monkeypatch, path):
    monkeypatch.setattr(sse, "PING", 0.05)
    memory.engine.write.clear()
    asyncio.get_running_loop().call_later(0.8, memory.engine.write.set)
    response = await memory.http().post(path, json=CHAT if "chat" in path else {"input": "Hi"})
    assert response.text.startswith("\n\n") and response.status_code == 200
    assert ANSWER in json.dumps(response.json())
    memory.engine.write.clear()
    asyncio.get_running_loop().call_later(0.8, memory.engine.write.set)
    failing = [{"role": "user", "content": "FAIL"}]
    body = {"model": "tiny", "messages": failing} if "chat" in path else {"input": failing}
    failed = (await memory.http().post(path, json=body)).json()
    assert failed["error"]["message"] == "the engine was lost"


async def test_last_event_id_wins_and_204_ends(memory):
    http = memory.http()
    whole = (await http.post("/v1/responses", json={"input": "Hi"})).json()
    url = f"/v1/responses/{whole['id']}?stream=true&starting_after=3"
    full = parse_sse((await http.get(url)).text)
    assert full[0]["id"] == "4"
    rest = parse_sse((await http.get(url, headers={"Last-Event-ID": "25"})).text)
    assert [event["id"] for event in rest] == ["26", "27", "28"]
    done = await http.get(url, headers={"Last-Event-ID": "28"})
    assert done.status_code == 204 and done.content == b""
    for wrong in ("99", "x", "-1", "٣"):
        response = await http.get(
            f"/v1/responses/{whole['id']}", params={"stream": "true", "starting_after": wrong}
        )
        assert response.status_code == 400 and error_of(response)["param"] == "starting_after"


async def test_attach_before_the_first_token(memory):
    """Refresh while the answer is queued: the reader waits and then gets all of it."""
    await memory.engine.rest()
    http = memory.http()
    created = (await http.post("/v1/responses", json={"input": "Hi", "background": True})).json()
    asyncio.get_running_loop().call_later(0.1, memory.engine.go.set)
    events = parse_sse((await http.get(f"/v1/responses/{created['id']}?stream=true")).text)
    assert events[0]["id"] == "0" and events[-1]["event"] == "response.completed"


async def test_what_is_not_there_is_told_by_its_field(web):
    """Well-formed or not, the same words."""
    http, there = web.http(), "0a18ea7452fbee5f5df6971ab433cfba"
    for what, kind in (("conversation", "conv"), ("response", "resp")):
        for identifier in ("x", f"{kind}_{there}"):
            error = error_of(await http.get(f"/v1/{what}s/{identifier}"))
            assert (error["message"], error["param"]) == (f"No {what} with id '{identifier}'.", f"{what}_id")
            field = {"conversation": "conversation", "response": "previous_response_id"}[what]
            error = error_of(await http.post("/v1/responses", json={"input": "Hi", field: identifier}))
            assert (error["message"], error["param"]) == (f"No {what} with id '{identifier}'.", field)


async def test_errors_have_openais_form(memory):
    http = memory.http()
    assert error_of(await http.get("/nothing"))["code"] == "unknown_url"
    wrong = await http.put("/v1/responses", json={})
    assert wrong.status_code == 405 and "POST" in wrong.headers["allow"]
    assert error_of(wrong)["code"] == "method_not_allowed"
    other = await http.put("/v1/responses/resp_x", json={})
    assert other.status_code == 405 and other.headers["allow"] == "DELETE, GET, HEAD"
    assert error_of(other)["message"].endswith("expected DELETE, GET, HEAD.")
    for method, path in (("POST", "/v1/embeddings"), ("POST", "/app.js"), ("DELETE", "/v1/nothing")):
        unknown = await http.request(method, path, json={})
        assert unknown.status_code == 404 and error_of(unknown)["code"] == "unknown_url"
    for path in ("/v1/responses", "/v1/chat/completions", "/v1/conversations"):
        broken = await http.post(path, content=b"{")
        assert broken.status_code == 400 and error_of(broken)["code"] == "invalid_json"
    missing = await http.get("/v1/responses/resp_x")
    assert missing.status_code == 404 and error_of(missing)["code"] == "not_found"
    assert (await http.get("/v1/responses/%00%ff")).status_code == 404
    given = await http.get("/livez", headers={"x-request-id": "mine-1"})
    assert given.headers["x-request-id"] == "mine-1"
    long = await http.post("/v1/responses", json={"input": "x"}, headers={"Idempotency-Key": "k" * 300})
    assert error_of(long)["param"] == "Idempotency-Key"


async def test_unexpected_failure_is_an_error_body(memory, monkeypatch, caplog):
    async def broken(*_):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(memory.chat.models, "all", broken)
    response = await memory.http().get("/v1/models")
    assert response.status_code == 500 and "secret" not in error_of(response)["message"]
    assert response.headers["x-request-id"] in error_of(response)["message"]
    assert "secret detail" in caplog.text


async def test_store_away_is_503_with_a_time_to_retry(memory, monkeypatch):
    monkeypatch.setattr(patience, "PATIENCE", 0.05)
    memory.store.down = True
    response = await memory.http().post("/v1/responses", json={"input": "Hi"})
    assert response.status_code == 503 and error_of(response)["code"] == "unavailable"
    assert response.headers["retry-after"] == "1" and response.headers["retry-after-ms"] == "1000"
    memory.store.down = False


async def test_large_bodies_are_refused_before_they_are_read(memory):
    http = memory.http()
    announced = await http.post("/v1/responses", content=b"x" * 30_000)
    assert announced.status_code == 413 and error_of(announced)["code"] == "request_too_large"

    async def chunks():
        for _ in range(30):
            yield b"x" * 1000

    unannounced = await http.post("/v1/responses", content=chunks())
    assert unannounced.status_code == 413
    reader, writer = await asyncio.open_connection("127.0.0.1", int(memory.url.rpartition(":")[2]))
    writer.write(b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n")
    huge = await asyncio.wait_for(reader.read(), 20)  # nothing of it was waited for
    writer.close()
    assert huge.startswith(b"HTTP/1.1 413")
    ask = {"input": "y" * 15_000}
    assert (await http.post("/v1/responses", json=ask)).status_code == 200


async def test_a_body_that_never_ends_is_given_up(monkeypatch):
    monkeypatch.setattr(middleware.BodyLimit.__init__, "__kwdefaults__", {"timeout": 0.1})
    async with running_web(MemoryStore()) as web:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(web.url.rpartition(":")[2]))
        writer.write(b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        answer = await asyncio.wait_for(reader.read(), 60)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 400") and b"body_timeout" in answer


async def test_an_sse_reader_that_never_reads_is_given_up_and_resumes(memory, monkeypatch):
    monkeypatch.setattr(sse, "SEND_TIMEOUT", 0.3)
    monkeypatch.setattr(follower, "MAX_TEXT", 100_000)
    memory.engine.answer = [f"{i:>7} " * 500 for i in range(1000)]  # 4 MB
    memory.engine.step, memory.engine.pause = 5, 0.0001
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    stuck.connect(("127.0.0.1", int(memory.url.rpartition(":")[2])))
    body = b'{"input":"Hi","stream":true}'
    stuck.sendall(
        b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    async with asyncio.timeout(60):
        while not (stored := [r for r in memory.store.all_responses.values() if r.outcome]):
            await asyncio.sleep(0.01)
        while memory.hub.following:
            await asyncio.sleep(0.01)
    seen = b""
    stuck.settimeout(60)
    while chunk := await asyncio.to_thread(stuck.recv, 1_000_000):
        seen += chunk
    stuck.close()
    last = max(map(int, re.findall(rb"\nid: (\d+)\ndata: [^\n]*\n\n", seen)))
    assert last < stored[0].outcome.usage.output
    client = memory.sdk()
    rest = [e async for e in await client.responses.retrieve(stored[0].id, stream=True, starting_after=last)]
    assert rest[0].sequence_number > last and rest[-1].type == "response.completed"


async def test_restart_lets_streams_go_and_whole_answers_stay(memory):
    memory.engine.write.clear()
    client = memory.sdk()
    whole = asyncio.create_task(client.responses.create(input="Hi"))
    async with asyncio.timeout(60):
        while not memory.hub.following:
            await asyncio.sleep(0.005)
    stream = await client.responses.create(input="Hi", stream=True)
    events = []
    async for event in stream:
        events.append(event)
        if event.type == "response.output_text.delta":
            memory.hub.dismiss("restarting")
    assert events[-1].type == "error" and events[-1].code == "server_restarting"
    response_id = events[0].response.id
    http = memory.http()
    for refused in (
        await http.get(f"/v1/responses/{response_id}?stream=true"),
        await http.post("/v1/responses", json={"input": "Hi"}),
        await http.post("/v1/chat/completions", json=CHAT),
    ):
        assert refused.status_code == 503 and error_of(refused)["code"] == "server_restarting"
        assert refused.headers["connection"] == "close" and refused.headers["retry-after-ms"] == "500"
    memory.engine.write.set()
    assert (await whole).output_text == ANSWER


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


async def test_the_page_is_served_under_its_policy(memory):
    if static.web_folder() is None:
        pytest.skip("no page in this checkout")
    http = memory.http()
    page = await http.get("/")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    for name, value in static.HEADERS.items():
        assert page.headers[name] == value
    assert "require-trusted-types-for 'script'" in page.headers["content-security-policy"]
    again = await http.get("/", headers={"If-None-Match": page.headers["etag"]})
    assert again.status_code == 304
    for path in ("/node_modules/x", "/../pyproject.toml", "/%2e%2e/pyproject.toml", "/nothing.js"):
        assert (await http.get(path)).status_code == 404


async def test_documents_are_served(memory):
    http = memory.http()
    assert (await http.get("/openapi.json")).json()["openapi"].startswith("3.1")
    assert (await http.get("/asyncapi.json")).json()["asyncapi"].startswith("3.")


async def test_keys_separate_tenants():
    store = MemoryStore()
    store.known_models.append(MODEL)
    async with running_web(store, api_keys=(("acme", "acme-secret"), ("other", "other-secret"))) as web:
        for key in ("", "wrong-secret"):
            web.key = key or "x"
            with pytest.raises(openai.AuthenticationError) as error:
                await web.sdk().responses.create(input="Hi")
            assert error.value.code == "invalid_api_key" and "wrong-secret" not in str(error.value)
        assert (await web.http().get("/v1/models")).headers["www-authenticate"] == "Bearer"
        web.key = "acme-secret"
        response = await web.sdk().responses.create(input="Hi")
        web.key = "other-secret"
        with pytest.raises(openai.NotFoundError):
            await web.sdk().responses.retrieve(response.id)
        assert (await web.http().get("/livez")).status_code == 200


async def test_without_keys_only_local_names_and_own_pages():
    keys = Keys((), host="192.0.2.7")
    for host in ("localhost:8000", "127.0.0.1", "[::1]:80", "192.0.2.7", "app.localhost"):
        assert (await keys.caller({"host": host})).tenant == "local"
    for host in ("evil.example", "", "localhost.evil.example", "[::"):
        with pytest.raises(Forbidden):
            await keys.caller({"host": host})
    await keys.caller({"host": "localhost:8000", "origin": "http://localhost:8000"})
    for origin in ("http://evil.example", "null", "http://localhost:9000", "http://[::"):
        with pytest.raises(Forbidden):
            await keys.caller({"host": "localhost:8000", "origin": origin})
    keys.check_origin(
        {"host": "127.0.0.1:1", "x-forwarded-host": "chat.example", "origin": "https://chat.example"}
    )


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic abc", "bearer wrong", "Bearer \udcff"])
async def test_wrong_authorization(header):
    keys = Keys((("acme", "acme-secret"),))
    assert (await keys.caller({"authorization": "bearer acme-secret"})).tenant == "acme"
    with pytest.raises(Unauthenticated):
        await keys.caller({"authorization": header})
