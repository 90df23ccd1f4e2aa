"""A store in memory and a hub on it."""

from __future__ import annotations

import asyncio

import pytest

from chatserver.service.web.hub import Hub
from tests.fakes import MemoryStore


@pytest.fixture
async def store():
    return MemoryStore()


@pytest.fixture
async def web(store):
    web = Hub(store.tapes, store.signals, "web_1")
    await web.start()
    await asyncio.sleep(0)
    yield web
    await web.close()
