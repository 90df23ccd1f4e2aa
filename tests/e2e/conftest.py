"""The whole program, once with the real engine and once with the scripted one."""

import pytest
from openai import OpenAI

from tests.program import Program

PLACES = 4
"""Answers that run at once in `real`."""


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    """The real thing: SGLang, SmolLM2, Valkey. Few places, so that answers queue."""
    folder = tmp_path_factory.mktemp("real") / "data"
    with Program(folder, model="smollm2-135m-instruct", CHATSERVER_MAX_RUNNING=str(PLACES)) as program:
        program.wait_ready()
        yield program


@pytest.fixture(scope="session")
def scripted(tmp_path_factory):
    """The same program and store with the scripted engine: for faults that need speed."""
    speed = {"SCRIPTED_TOKENS_PER_SECOND": "60", "SCRIPTED_TTFT_MS": "20"}
    with Program(tmp_path_factory.mktemp("scripted") / "data", model="scripted", **speed) as program:
        program.wait_ready()
        yield program


def client_of(program: Program) -> OpenAI:
    """The official SDK, as anybody would point it at the server; it has the patience that a busy machine needs."""
    return OpenAI(base_url=f"{program.url}/v1", api_key="unused-without-keys", max_retries=10, timeout=180)
