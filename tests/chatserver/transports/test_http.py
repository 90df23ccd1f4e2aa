"""Bytes on the wire: errors, limits of bodies, the page and the documents."""

from __future__ import annotations

import asyncio

import pytest

from chatserver.service.web import patience
from chatserver.transports import middleware, static
from tests.chatserver.transports.conftest import running_web
from tests.chatserver.transports.reading import error_of
from tests.fakes import MODEL, MemoryStore


@pytest.fixture
async def memory():
    """A web role in memory, for what no store can change."""
    store = MemoryStore()
    store.known_models.append(MODEL)
    async with running_web(store, max_body=20_000) as web:
        yield web


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
