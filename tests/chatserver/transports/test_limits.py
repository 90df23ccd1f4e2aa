"""Limits and money at the doors: requests, tokens, answers at once, spending, costs and usage."""

from __future__ import annotations

import asyncio
import json
import re

import openai
import pytest

from chatserver.domain.money import shown
from chatserver.service.web import settling
from chatserver.service.web.prices import Prices
from tests.chatserver.transports.keyed import (
    HI,
    PRICE,
    bearer,
    chat_of,
    error_on,
    key_id_of,
    new_key,
    socket_of,
)
from tests.chatserver.transports.test_described import asyncapi, validator


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
    assert int(refused.headers["x-ratelimit-remaining-tokens"]) < 3000
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
    refused = await two[1].http(headers=bearer(token)).post("/v1/chat/completions", json=chat_of())
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
    assert (await http.post("/v1/chat/completions", json=chat_of(n=2))).status_code == 429
    assert (await http.post("/v1/chat/completions", json=chat_of())).status_code == 200


async def test_several_answers_need_as_many_places(two):
    web = two[0]
    token = await new_key(web.store, concurrent=2)
    answer = await web.http(headers=bearer(token)).post("/v1/chat/completions", json=chat_of(n=2))
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
    chat = (await http.post("/v1/chat/completions", json=chat_of(n=2))).json()["usage"]
    several = PRICE.cost(
        prompt=chat["prompt_tokens"],
        cached=chat["prompt_cache_hit_tokens"],
        output=chat["completion_tokens"],
    )
    assert chat["cost"]["amount"] == shown(several)
    stream = await http.post(
        "/v1/chat/completions", json=chat_of(stream=True, stream_options={"include_usage": True})
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
            event = json.loads(await asyncio.wait_for(connection.recv(), 60))
            if event["type"] == "response.completed":
                break
        assert event["stream_id"] == "a" and event["response"]["usage"]["cost"]["currency"] == "USD"


async def test_a_socket_is_told_of_its_limits_with_every_answer(two):
    """Behind the first event of each; the SDK hands it on. A key without limits is told nothing."""
    web, document = two[0], asyncapi.document()
    messages = document["components"]["messages"]
    for limits, names in (({"requests": 9, "tokens": 9000}, ["requests", "tokens"]), ({"concurrent": 9}, [])):
        web.key = await new_key(web.store, **limits)
        told = []
        async with web.sdk().responses.connect() as connection:
            for _ in range(2):
                await connection.response.create(**HI, max_output_tokens=50, stream_id="a")
                kinds = []
                async for event in connection:
                    kinds.append(event.type)
                    if event.type == "rate_limits.updated":
                        validator(document, messages[f"ws.{event.type}"]["payload"]).validate(event.to_dict())
                        told.append(event)
                    if event.type == "response.completed":
                        break
                assert kinds[0] == "response.created" and (kinds[1] == "rate_limits.updated") == bool(names)
        assert [[rate["name"] for rate in event.rate_limits] for event in told] == [names] * 2 * bool(names)
        if told:
            requests, tokens = ([event.rate_limits[n] for event in told] for n in (0, 1))
            assert [rate["remaining"] for rate in requests] == [7, 6]  # the socket itself was one
            assert 8500 < tokens[0]["remaining"] < 8950 and tokens[0]["reset_seconds"] > 0


async def test_a_web_process_that_dies_leaks_no_place(two, monkeypatch):
    """It reserved and died before its answer began: the other one gives the place back when it is overdue."""
    monkeypatch.setattr(settling, "INTERVAL", 0.02)
    web = two[0]
    token = await new_key(web.store, concurrent=1)
    began, died = web.store.turns.begin, asyncio.Event()

    async def dies(*_, **__):
        died.set()
        raise asyncio.CancelledError

    web.store.turns.begin = dies
    dead = asyncio.create_task(web.http(headers=bearer(token)).post("/v1/responses", json=HI))
    await asyncio.wait_for(died.wait(), 60)
    await asyncio.wait({dead}, timeout=0.5)
    dead.cancel()
    web.store.turns.begin = began
    http = two[1].http(headers=bearer(token))
    assert (await http.post("/v1/responses", json=HI)).status_code == 429
    assert await web.store.accounts.review(early=60) == 1
    assert (await http.post("/v1/responses", json=HI)).status_code == 200
