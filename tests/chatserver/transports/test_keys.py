"""Stored keys at the doors: scopes, revocation, constant time, other sites' pages."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import replace

import pytest
import websockets

from chatserver.domain.access import Scope
from chatserver.errors import Unauthenticated
from chatserver.service.web import vigil
from chatserver.transports import auth
from chatserver.transports.gate import permissions
from chatserver.transports.http import routes
from chatserver.wire.documents import openapi
from tests.chatserver.transports.keyed import (
    DEED,
    HI,
    bearer,
    error_on,
    key_id_of,
    new_key,
    socket_of,
)

PUBLIC = {"/livez", "/readyz", "/openapi.json", "/asyncapi.json", "/docs", "/docs/events", "/docs/developers"}


def test_every_route_needs_a_key_or_is_public_on_purpose():
    """Safe by default: a route that somebody adds without thinking of keys fails here."""

    class Door:
        registry = chat = keys = settings = admission = accounts = pulse = None

    served = [route for route in routes(Door()) if hasattr(route, "methods")]
    without_a_gate = {route.path for route in served if type(route.app).__name__ != "Gate"}
    assert without_a_gate == PUBLIC and len(served) > 3 * len(PUBLIC)


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
            await asyncio.wait_for(idle.recv(), 60)
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
