"""Who may ask: keys, tenants, and without keys only this machine and its own pages."""

from __future__ import annotations

import openai
import pytest

from chatserver.errors import Forbidden, Unauthenticated
from chatserver.transports.auth import Keys
from tests.chatserver.transports.conftest import running_web
from tests.fakes import MODEL, MemoryStore


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
