"""What the tests of keys share: keys in a store, two web processes on it, sockets that show a key."""

from __future__ import annotations

import asyncio
import json
import os
import time
from contextlib import asynccontextmanager

import websockets

from chatserver.adapters.valkey import keys
from chatserver.domain.access import ApiKey, Limits, Scope, key_shard, new_token
from chatserver.domain.money import Price
from chatserver.ports.access import Deed
from chatserver.service.web.prices import Prices

PRICE = Price(hit=70_000, miss=270_000, output=1_100_000)
PRICES = Prices({"tiny": PRICE})
HI = {"input": "Hi"}
DEED = Deed(1.0, "root", "create", "", "")


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


async def expire(store, token: str) -> None:
    """Let the time of a key be over, however long it would be."""
    key_id = key_id_of(token)
    shard = key_shard(key_id)
    assert shard is not None
    past = ("HSET", keys.payer(key_id, shard).fields, "expires_at", int(time.time()) - 1)
    assert await store.access._client.run(shard, past) == 0, "it has that field already"


def key_id_of(token: str) -> str:
    return "key_" + token.split("-")[1]


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@asynccontextmanager
async def socket_of(web, token: str | None):
    headers = bearer(token) if token else {}
    async with websockets.connect(
        web.url.replace("http", "ws") + "/v1/responses", additional_headers=headers
    ) as connection:
        yield connection


async def error_on(connection) -> dict:
    while True:
        event = json.loads(await asyncio.wait_for(connection.recv(), 60))
        if event["type"] == "error":
            return event


def chat_of(**more):
    return {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], **more}
