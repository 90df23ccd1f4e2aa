"""A store in memory and a hub on it."""

from __future__ import annotations

import asyncio

import pytest

from chatserver.service.web.hub import Hub
from tests.fakes import MemoryStore


@pytest.fixture
async def memory():
    return MemoryStore()


@pytest.fixture
async def web(memory):
    web = Hub(memory.tapes, memory.signals, "web_1")
    await web.start()
    await asyncio.sleep(0)
    yield web
    await web.close()
