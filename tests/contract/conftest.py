"""Clients that others wrote, against the whole program with the scripted engine."""

import pytest

from tests.program import Program


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """One program for the clients of a module."""
    speed = {"SCRIPTED_TOKENS_PER_SECOND": "300", "SCRIPTED_TTFT_MS": "5"}
    with Program(tmp_path_factory.mktemp("contract") / "data", model="scripted", **speed) as running:
        running.wait_ready()
        yield running
