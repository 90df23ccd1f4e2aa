"""Schedulers that die, stop or forget a request: nothing hangs, the error says what happened, nothing is left."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.sglang, pytest.mark.asyncio(loop_scope="session")]


async def happened(folder, ranks: int, *scenarios: str) -> dict[str, dict]:
    """Run scenarios in a process of their own; return what happened by its name."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.engine.faults", str(folder), str(ranks), *scenarios),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
    )
    out, err = await asyncio.wait_for(process.communicate(), 280)
    assert process.returncode == 0, err.decode()[-3000:]
    return {said.pop("name"): said for said in map(json.loads, out.decode().splitlines())}


async def test_schedulers_that_pause_forget_and_stop(tiny_deepseek):
    """A pause is waited out; a forgotten request fails alone; stopped schedulers are given up, and end with us."""
    said = await happened(tiny_deepseek, 1, "pauses", "aborts", "stalls", "stops")
    assert said["pauses"] == {"tokens": 40}
    assert said["aborts"]["at_once"] >= 5, said  # 64 on a machine with ten times its work
    assert (said["aborts"]["running"], said["aborts"]["leaked"], said["aborts"]["whole"]) == (0, 0, True)
    assert said["stalls"] == {"tokens": 20}
    assert said["lost"]["error"] == "EngineStalled"
    assert said["lost"]["text"].startswith("no token came for 5 s")
    assert said["stops"]["error"] == "EngineLost"
    assert "the scheduler said nothing for" in said["stops"]["text"]
    assert said["stops"]["seconds"] < 60
    assert (said["health"]["ok"], said["health"]["lost"]) == (False, True)
    assert said["closed"] == {"left": 0}


async def test_a_rank_that_dies_in_an_answer(tiny_deepseek):
    """One of two: the other one cannot go on, and is not waited for."""
    said = await happened(tiny_deepseek, 2, "dies")
    assert said["dies"]["error"] == said["afterwards"]["error"] == "EngineLost"
    assert said["dies"]["seconds"] < 60
    assert said["health"]["lost"]
    assert said["closed"] == {"left": 0}


async def test_a_rank_that_dies_at_start(tiny_deepseek):
    """The start ends with an error in one line, soon after, and nothing is left of the other rank."""
    said = await happened(tiny_deepseek, 2, "at-start")
    assert said["start"]["error"] == "EngineError"
    assert "Rank 1 scheduler died during initialization" in said["start"]["text"]
    assert "\n" not in said["start"]["text"]
    assert said["closed"] == {"left": 0}
