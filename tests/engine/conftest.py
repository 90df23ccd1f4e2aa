"""Fixtures of the engine tests: models prepared once, one real engine for the whole session."""

import os
import uuid
from pathlib import Path

import pytest
import pytest_asyncio

from engine.contract import Chunk, FinishReason, GenerateRequest, Sampling
from engine.cpu import vision_shim
from engine.models import prepare
from engine.scripted import ScriptedEngine
from engine.settings import EngineSettings
from engine.sglang_engine import SglangEngine

# Test modules import SGLang while they are collected, and it imports torchvision.
vision_shim.install()

DATA = Path(os.environ.get("CHATSERVER_TEST_DATA") or Path(__file__).parents[2] / ".data")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Return the default model's folder, prepared on first use."""
    return prepare("smollm2-135m-instruct", DATA, lambda *progress: None)


@pytest.fixture(scope="session")
def tiny_deepseek() -> Path:
    """Return the small random DeepSeek-V3, prepared on first use."""
    return prepare("tiny-deepseek-v3", DATA, lambda *progress: None)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sglang_engine(smollm2):
    """Run the real engine on the default model."""
    engine = SglangEngine(EngineSettings(smollm2, "smollm2", kv_tokens=16384, max_running=16, max_queued=16))
    await engine.start(lambda phase: None)
    yield engine
    await engine.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def scripted_engine():
    """Run the scripted engine, fast."""
    engine = ScriptedEngine(tokens_per_second=500, ttft_ms=2, max_running=16, max_queued=16)
    await engine.start(lambda phase: None)
    yield engine
    await engine.close()


@pytest.fixture(params=["scripted", pytest.param("sglang", marks=pytest.mark.sglang)])
def engine(request):
    """Return each engine in turn."""
    return request.getfixturevalue(f"{request.param}_engine")


def new_id() -> str:
    """Return a fresh request id."""
    return uuid.uuid4().hex


def prompt(engine, text: str) -> tuple[int, ...]:
    """Return the ids of a one-message conversation that no other test has."""
    tokenizer = engine.tokenizer
    return (*tokenizer.head(None), *tokenizer.segment("user", text), *tokenizer.cue())


def request(ids, max_tokens: int = 24, *, salt: str = "", **sampling) -> GenerateRequest:
    """Return a greedy request unless told otherwise."""
    chosen = Sampling(max_tokens=max_tokens, **{"temperature": 0.0, **sampling})
    return GenerateRequest(new_id(), tuple(ids), chosen, salt)


async def run(engine, generate_request) -> tuple[tuple[int, ...], int, FinishReason]:
    """Run a request to its end; return ids, cached tokens and why it ended."""
    chunks: list[Chunk] = [chunk async for chunk in engine.generate(generate_request)]
    assert all(chunk.finish is None for chunk in chunks[:-1])
    assert chunks[-1].finish is not None
    assert len({chunk.cached for chunk in chunks}) == 1
    return tuple(i for chunk in chunks for i in chunk.ids), chunks[-1].cached, chunks[-1].finish
