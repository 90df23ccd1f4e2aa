"""A real Valkey for the services' tests, once a module, empty for each test."""

import pytest
import redis

from chatserver.adapters.valkey import ValkeyStore
from tests.stores import running_store


@pytest.fixture(scope="module")
def valkey():
    with running_store() as running:
        yield running


@pytest.fixture
async def store(valkey):
    with redis.Redis(unix_socket_path=str(valkey.socket)) as client:
        client.flushall()
    opened = await ValkeyStore.open(valkey.url)
    yield opened
    await opened.close()
