"""Stored keys at the doors: scopes, limits, headers, costs, revocation, other sites' pages."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import openai
import pytest
import websockets

from chatserver.domain.access import ApiKey, Limits, Scope, new_token
from chatserver.domain.money import Price, shown
from chatserver.errors import Unauthenticated
from chatserver.ports.access import Deed
from chatserver.service.web import settling, vigil
from chatserver.service.web.prices import Prices
from chatserver.transports import auth
from chatserver.transports.gate import permissions
from chatserver.transports.http import routes
from chatserver.wire.documents import openapi
from tests.chatserver.transports.conftest import opened_store, running_web

PRICE = Price(hit=70_000, miss=270_000, output=1_100_000)
PRICES = Prices({"tiny": PRICE})
HI = {"input": "Hi"}
DEED = Deed(1.0, "root", "create", "", "")
PUBLIC = {"/livez", "/readyz", "/openapi.json", "/asyncapi.json", "/docs", "/docs/events", "/docs/developers"}


async def new_key(store, tenant: str = "acme", scopes=frozenset(Scope), expires_at: int = 0, **limits) -> str:
    key_id, token, kept = new_token(tenant, os.urandom(7), os.urandom(32))
    key = ApiKey(
        key_id,
        tenant,
        kept,
        scopes=frozenset(scopes),
        limits=Limits(**limits),
        created_at=1,
        expires_at=expires_at,
    )
    await store.access.create(key, DEED)
    return token


def key_id_of(token: str) -> str:
    return "key_" + token.split("-")[1]


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.fixture
async def two(monkeypatch):
    """Two web processes on one real store; the first has an engine."""
    monkeypatch.setattr(vigil, "INTERVAL", 0.05)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened_store("valkey"))
        first = await stack.enter_async_context(running_web(store, prices=PRICES))
        second = await stack.enter_async_context(
            running_web(store, engine=first.engine, prices=PRICES, cors_origins=("https://chat.example",))
        )
        while not await store.registry.models():
            await asyncio.sleep(0.005)
        yield first, second


@asynccontextmanager
async def socket_of(web, token: str | None):
    headers = bearer(token) if token else {}
    async with websockets.connect(
        web.url.replace("http", "ws") + "/v1/responses", additional_headers=headers
    ) as connection:
        yield connection


async def error_on(connection) -> dict:
    while True:
        event = json.loads(await asyncio.wait_for(connection.recv(), 10))
        if event["type"] == "error":
            return event


def test_every_route_needs_a_key_or_is_public_on_purpose():
    """Safe by default: a route that somebody adds without thinking of keys fails here."""

    class Door:
        registry = chat = keys = settings = admission = accounts = None

    for route in routes(Door()):
        if hasattr(route, "methods") and type(route.app).__name__ != "Gate":
            assert route.path in PUBLIC, f"{route.path} has no gate"


async def test_every_key_is_compared_in_constant_time(monkeypatch):
    """Whichever static key it is, or none: all are compared, and only by digests of one length."""
    compared = []

    def compare(a, b):
        compared.append((len(a), len(b)))
        return a == b

    monkeypatch.setattr(auth.hmac, "compare_digest", compare)
    keys = auth.Keys([(f"t{i}", f"secret-number-{i}") for i in range(5)])
    for token in ("secret-number-0", "secret-number-4"):
        assert (await keys.caller_of(token)).tenant == f"t{token[-1]}"
    with pytest.raises(Unauthenticated):
        await keys.caller_of("x" * 5000)
    assert compared == [(32, 32)] * 15


async def test_one_key_closes_the_door_for_all_without(two, monkeypatch):
    """Loopback is open while there is no key; with the first one every process asks for it."""
    monkeypatch.setattr(auth, "FRESH", 0.0)
    for web in two:
        assert (await web.http().get("/v1/models")).status_code == 200
    token = await new_key(two[0].store)
    for web in two:
        http = web.http()
        for path, operations in openapi.document()["paths"].items():
            for method in operations.keys() - {"parameters"}:
                if path in PUBLIC:
                    continue
                url = re.sub(r"{\w+}", "x", path)
                answer = await http.request(method.upper(), url)
                assert answer.status_code == 401, (method, path)
                assert answer.json()["error"]["code"] == "invalid_api_key"
                assert answer.headers["www-authenticate"] == "Bearer"
        wrong = token[:-1] + ("A" if token[-1] != "A" else "B")
        refused = await http.get("/v1/models", headers=bearer(wrong))
        assert refused.status_code == 401 and token[10:] not in refused.text
        assert (await http.get("/v1/models", headers=bearer(token))).status_code == 200


async def test_requests_a_minute_over_two_processes(two):
    """Six requests, three at each process, of a key that may make five."""
    token = await new_key(two[0].store, requests=5)
    answers = [await web.http().get("/v1/models", headers=bearer(token)) for web in (*two, *two, *two)]
    assert [a.status_code for a in answers] == [200] * 5 + [429]
    assert [a.headers["x-ratelimit-remaining-requests"] for a in answers] == ["4", "3", "2", "1", "0", "0"]
    refused = answers[-1]
    assert refused.headers["x-ratelimit-limit-requests"] == "5"
    assert re.fullmatch(r"\d+(\.\d+)?s|\d+ms|1m0s", refused.headers["x-ratelimit-reset-requests"])
    assert 0 < int(refused.headers["retry-after-ms"]) <= 12_000
    assert int(refused.headers["retry-after"]) == -(-int(refused.headers["retry-after-ms"]) // 1000)
    error = refused.json()["error"]
    assert error["type"] == "rate_limit_error" and error["code"] == "rate_limit_exceeded"
    assert "x-ratelimit-limit-tokens" not in refused.headers


async def test_tokens_are_reserved_then_settled(two):
    """The headers show the reservation; when the answer has ended, what it really took."""
    web = two[0]
    token = await new_key(web.store, tokens=5000)
    http = web.http(headers=bearer(token))
    web.engine.write.clear()
    asking = asyncio.create_task(http.post("/v1/responses", json=HI | {"max_output_tokens": 3000}))
    while not web.engine.started:
        await asyncio.sleep(0.005)
    refused = (
        await two[1].http(headers=bearer(token)).post("/v1/responses", json=HI | {"max_output_tokens": 3000})
    )
    assert refused.status_code == 429 and "TPM" in refused.json()["error"]["message"]
    assert int(refused.headers["x-ratelimit-remaining-tokens"]) < 2100
    web.engine.write.set()
    usage = (await asking).json()["usage"]
    again = await http.post("/v1/responses", json=HI | {"max_output_tokens": 3000})
    left = int(again.headers["x-ratelimit-remaining-tokens"])
    assert 5000 - 3100 - usage["total_tokens"] <= left <= 2000
    small = await new_key(web.store, tokens=100)
    large = await http.post("/v1/responses", json=HI, headers=bearer(small))
    assert large.status_code == 429 and large.json()["error"]["code"] == "tokens_exceed_limit"
    assert large.headers["x-should-retry"] == "false" and "retry-after" not in large.headers


async def test_answers_one_after_the_other_never_meet_the_bound_on_those_at_once(two):
    """The end of an answer is known to the next request, whichever process it comes to; SDK and all."""
    token = await new_key(two[0].store, concurrent=1)
    for web in two:
        web.key = token
    clients = [web.sdk() for web in two]
    for turn in range(20):
        assert (await clients[turn % 2].responses.create(input="Hi")).output_text


async def test_answers_at_once(two):
    web = two[0]
    token = await new_key(web.store, concurrent=2)
    web.engine.write.clear()
    web.key = token
    http = web.http(headers=bearer(token))
    running = [asyncio.create_task(http.post("/v1/responses", json=HI)) for _ in range(2)]
    while len(web.engine.started) < 2:
        await asyncio.sleep(0.005)
    refused = await two[1].http(headers=bearer(token)).post("/v1/chat/completions", json=_chat())
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "concurrent_limit_exceeded"
    assert refused.headers["retry-after"] == "1"
    with pytest.raises(openai.RateLimitError):
        await web.sdk().responses.create(input="Hi")
    web.engine.write.set()
    assert [(await task).status_code for task in running] == [200, 200]


async def test_a_refused_turn_and_a_second_key_give_back_what_they_held(two):
    """Neither a prompt that is refused, nor an idempotent repeat, nor a bad request keeps a place."""
    web = two[0]
    token = await new_key(web.store, concurrent=1)
    http = web.http(headers=bearer(token))
    assert (await http.post("/v1/responses", json={"input": "REFUSE"})).status_code == 400
    assert (
        await http.post("/v1/responses", json={"input": "Hi", "conversation": "conv_x"})
    ).status_code == 404
    first = await http.post("/v1/responses", json=HI, headers={"Idempotency-Key": "k"})
    again = await http.post("/v1/responses", json=HI, headers={"Idempotency-Key": "k"})
    assert first.json()["id"] == again.json()["id"]
    assert (await http.post("/v1/chat/completions", json=_chat(n=2))).status_code == 429
    assert (await http.post("/v1/chat/completions", json=_chat())).status_code == 200


async def test_several_answers_need_as_many_places(two):
    web = two[0]
    token = await new_key(web.store, concurrent=2)
    answer = await web.http(headers=bearer(token)).post("/v1/chat/completions", json=_chat(n=2))
    assert answer.status_code == 200 and len(answer.json()["choices"]) == 2


async def test_what_an_answer_costs(two):
    """On every answer, in every dialect, to the last digit; and the same in GET /v1/usage."""
    web = two[0]
    token = await new_key(web.store, spend=10**12)
    http = web.http(headers=bearer(token))
    whole = (await http.post("/v1/responses", json=HI)).json()
    used = whole["usage"]
    cached = used["input_tokens_details"]["cached_tokens"]
    picos = PRICE.cost(prompt=used["input_tokens"], cached=cached, output=used["output_tokens"])
    assert used["cost"] == {"amount": shown(picos), "currency": "USD"}
    assert (await http.get(f"/v1/responses/{whole['id']}")).json()["usage"] == used
    chat = (await http.post("/v1/chat/completions", json=_chat(n=2))).json()["usage"]
    several = PRICE.cost(
        prompt=chat["prompt_tokens"],
        cached=chat["prompt_cache_hit_tokens"],
        output=chat["completion_tokens"],
    )
    assert chat["cost"]["amount"] == shown(several)
    stream = await http.post(
        "/v1/chat/completions", json=_chat(stream=True, stream_options={"include_usage": True})
    )
    (last,) = re.findall(r'"usage":(\{.*?\}\}?),"timing"', stream.text)
    one = json.loads(last)["cost"]["amount"]
    report = (await http.get("/v1/usage")).json()
    (row,) = report["data"]
    assert row["key_id"] == key_id_of(token) and row["model"] == "tiny" and row["requests"] == 4
    total = picos + several + round(float(one) * 10**12)
    assert row["cost"] == {"amount": shown(total), "currency": "USD"} and row["unpriced_requests"] == 0
    assert report["totals"][0]["input_tokens"] == row["input_tokens"]
    by_day = (await http.get("/v1/usage?group_by=day")).json()["data"]
    assert set(by_day[0]) == set(row) - {"key_id", "model"}
    other = await new_key(web.store, tenant="other")
    assert (await web.http(headers=bearer(other)).get("/v1/usage")).json()["data"] == []


async def test_usage_names_the_field_that_is_wrong(two):
    web = two[0]
    http = web.http(headers=bearer(await new_key(web.store)))
    for query, field in (
        ("start_date=2026-13-01", "start_date"),
        ("end_date=20261101", "end_date"),
        ("start_date=2026-01-01&end_date=2020-01-01", "start_date"),
        ("start_date=2020-01-01", "start_date"),
        ("group_by=tenant", "group_by"),
        ("group_by=day,day", "group_by"),
        ("limit=3", "limit"),
    ):
        refused = await http.get(f"/v1/usage?{query}")
        assert refused.status_code == 400 and refused.json()["error"]["param"] == field, query


async def test_spending_has_an_end(two):
    """402 in OpenAI's words; the SDK does not try again."""
    web = two[0]
    token = await new_key(web.store, spend=PRICE.cost(prompt=0, cached=0, output=100))
    web.key = token
    client = web.sdk()
    await client.responses.create(input="Hi", max_output_tokens=20)
    with pytest.raises(openai.APIStatusError) as refused:
        await client.responses.create(input="Hi", max_output_tokens=200)
    assert refused.value.status_code == 402 and refused.value.code == "insufficient_quota"
    assert refused.value.type == "insufficient_quota"
    unpriced = two[1].chat._asking
    unpriced._prices = Prices()
    answer = await two[1].http(headers=bearer(token)).post("/v1/responses", json=HI)
    assert answer.status_code == 403 and answer.json()["error"]["code"] == "model_not_priced"


async def test_scopes(two):
    """Each scope opens its routes, and no others."""
    web = two[0]
    tokens = {scope: await new_key(web.store, scopes={scope}) for scope in Scope}
    http = web.http()
    for path, operations in openapi.document()["paths"].items():
        for method in operations.keys() - {"parameters"}:
            if path in PUBLIC:
                continue
            allowed = permissions(method.upper(), path) or tuple(Scope)
            for scope, token in tokens.items():
                url = re.sub(r"{\w+}", "x", path)
                answer = await http.request(method.upper(), url, headers=bearer(token))
                refused = answer.status_code == 403 and answer.json()["error"]["code"] == "missing_scope"
                assert refused == (scope not in allowed), (method, path, scope)
    async with socket_of(web, tokens[Scope.READ]) as connection:
        assert (await error_on(connection))["error"]["code"] == "missing_scope"
        with pytest.raises(websockets.ConnectionClosed):
            await connection.recv()
        assert connection.close_code == 4503


async def test_revoked_and_expired_keys(two):
    """At once, at both processes, on open sockets too; with a code that says: do not come back."""
    web, other = two
    token = await new_key(web.store)
    assert (await other.http().get("/v1/models", headers=bearer(token))).status_code == 200
    async with socket_of(web, token) as idle:
        await web.store.access.revoke(key_id_of(token), replace(DEED, at=time.time(), what="revoke"))
        for process in two:
            refused = await process.http().get("/v1/models", headers=bearer(token))
            assert refused.status_code == 401 and "revoked" in refused.json()["error"]["message"]
        assert (await error_on(idle))["status"] == 401
        with pytest.raises(websockets.ConnectionClosed):
            await asyncio.wait_for(idle.recv(), 5)
        assert idle.close_code == 4501
    old = await new_key(web.store, expires_at=int(time.time()) - 1)
    refused = await web.http().get("/v1/models", headers=bearer(old))
    assert refused.status_code == 401 and "expired" in refused.json()["error"]["message"]


async def test_a_key_that_is_revoked_between_two_frames(two, monkeypatch):
    monkeypatch.setattr(vigil, "INTERVAL", 60)
    await asyncio.sleep(0.1)
    web = two[0]
    token = await new_key(web.store)
    async with socket_of(web, token) as connection:
        await connection.send(json.dumps({"type": "response.create", **HI}))
        while json.loads(await connection.recv())["type"] != "response.completed":
            pass
        await web.store.access.revoke(key_id_of(token), replace(DEED, at=time.time(), what="revoke"))
        await connection.send(json.dumps({"type": "response.create", **HI}))
        assert (await error_on(connection))["error"]["code"] == "invalid_api_key"
        with pytest.raises(websockets.ConnectionClosed):
            await connection.recv()
        assert connection.close_code == 4501


async def test_limits_on_the_websocket(two):
    """Nested errors carry what HTTP has in its headers; the connection and its other lanes go on."""
    web = two[0]
    token = await new_key(web.store, requests=3, concurrent=1)
    async with socket_of(web, token) as connection:  # one request
        web.engine.write.clear()
        await connection.send(json.dumps({"type": "response.create", "stream_id": "a", **HI}))
        while not web.engine.started:
            await asyncio.sleep(0.005)
        await connection.send(json.dumps({"type": "response.create", "stream_id": "b", **HI}))
        error = await error_on(connection)
        assert error["status"] == 429 and error["stream_id"] == "b"
        assert error["error"]["code"] == "concurrent_limit_exceeded"
        assert error["error"]["headers"]["x-ratelimit-remaining-requests"] == "0"
        await connection.send(json.dumps({"type": "response.create", "stream_id": "b", **HI}))
        error = await error_on(connection)
        assert error["error"]["code"] == "rate_limit_exceeded"
        assert int(error["error"]["headers"]["retry-after-ms"]) > 1000
        web.engine.write.set()
        while True:
            event = json.loads(await asyncio.wait_for(connection.recv(), 10))
            if event["type"] == "response.completed":
                break
        assert event["stream_id"] == "a" and event["response"]["usage"]["cost"]["currency"] == "USD"


async def test_a_web_process_that_dies_leaks_no_place(two, monkeypatch):
    """It reserved and died before its answer began: the other one gives the place back when it is overdue."""
    monkeypatch.setattr(settling, "INTERVAL", 0.02)
    web = two[0]
    token = await new_key(web.store, concurrent=1)
    began = web.store.turns.begin

    async def dies(*_, **__):
        raise asyncio.CancelledError

    web.store.turns.begin = dies
    dead = asyncio.create_task(web.http(headers=bearer(token)).post("/v1/responses", json=HI))
    await asyncio.wait({dead}, timeout=2)
    dead.cancel()
    web.store.turns.begin = began
    http = two[1].http(headers=bearer(token))
    assert (await http.post("/v1/responses", json=HI)).status_code == 429
    assert await web.store.accounts.review(early=60) == 1
    assert (await http.post("/v1/responses", json=HI)).status_code == 200


async def test_pages_of_other_sites(two):
    """Only those on the list, only with what they need; no cookies for anybody."""
    _, web = two
    http = web.http(headers=bearer(await new_key(web.store)))
    allowed = await http.get("/v1/models", headers={"Origin": "https://chat.example"})
    assert allowed.headers["access-control-allow-origin"] == "https://chat.example"
    assert "x-request-id" in allowed.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in allowed.headers and "Origin" in allowed.headers["vary"]
    asked = {
        "Origin": "https://chat.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, idempotency-key, x-stainless-os",
    }
    before = await http.options("/v1/responses", headers=asked)
    assert before.status_code == 200 and before.headers["access-control-max-age"] == "600"
    for origin in ("https://evil.example", "http://chat.example", "https://chat.example.evil", "null"):
        refused = await http.options("/v1/responses", headers=asked | {"Origin": origin})
        assert refused.status_code == 400 and "access-control-allow-origin" not in refused.headers
        got = await http.get("/v1/models", headers={"Origin": origin})
        assert "access-control-allow-origin" not in got.headers
    plain = await two[0].http().options("/v1/responses", headers=asked)
    assert "access-control-allow-origin" not in plain.headers


def _chat(**more):
    return {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], **more}
