"""SGLang on the CPU platform computes what transformers computes, and a scheduler's death is noticed.

DeepSeek-V3 has its own tests in `tests/engine/deepseek`.
"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import prompt, request, run

pytestmark = [pytest.mark.sglang, pytest.mark.asyncio(loop_scope="session")]

QUESTIONS = ("What is the capital of France?", "Write one line about rain.", "2024 + 1 =", "Qui es-tu ?")


def transformers_answer(folder, ids, count: int) -> tuple[int, ...]:
    """Return transformers' greedy continuation, up to the end token."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    out = model.generate(torch.tensor([ids]), max_new_tokens=count, do_sample=False)
    return tuple(out[0, len(ids) :].tolist())


async def test_greedy_answers_equal_transformers(sglang_engine, smollm2):
    """The prepared weights and SGLang's float32 give the same ids to the end."""
    prompts = [prompt(sglang_engine, text) for text in QUESTIONS]
    ours = [(await run(sglang_engine, request(ids, 40)))[0] for ids in prompts]
    theirs = await asyncio.to_thread(lambda: [transformers_answer(smollm2, ids, 40) for ids in prompts])
    assert ours == theirs


LOST = """
import asyncio, os, signal, sys, uuid
from pathlib import Path
from engine.contract import EngineLost, GenerateRequest, Sampling
from engine.settings import EngineSettings
from engine.sglang_engine import SglangEngine

async def main(folder):
    engine = SglangEngine(EngineSettings(Path(folder), "tiny", kv_tokens=2048, context=1024))
    await engine.start(lambda phase: None)
    ids = engine.tokenizer.head(None) + engine.tokenizer.segment("user", "Hi") + engine.tokenizer.cue()
    asked = GenerateRequest(uuid.uuid4().hex, ids, Sampling(max_tokens=900, temperature=0.0, ignore_end=True))
    count = 0
    try:
        async for chunk in engine.generate(asked):
            count += len(chunk.ids)
            if count == 5:
                os.kill(engine._runtime.get_all_child_pids()[0], signal.SIGKILL)
    except EngineLost as error:
        print("lost:", error)
    health = await engine.health()
    print("health:", health.ok, health.detail)
    try:
        await engine.prefill(uuid.uuid4().hex, ids)
    except EngineLost as error:
        print("refused:", error)
    await engine.close()
    print("closed")

if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
"""


async def test_a_killed_scheduler_is_noticed(tiny_deepseek, tmp_path):
    """Requests raise EngineLost within seconds, health says so, and our process lives on to be closed."""
    script = tmp_path / "lost.py"
    script.write_text(LOST)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(script),
        str(tiny_deepseek),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    out, err = await asyncio.wait_for(process.communicate(), 300)
    lines = out.decode().splitlines()
    assert process.returncode == 0, err.decode()[-3000:]
    assert lines[0].startswith("lost: a scheduler process failed")
    assert lines[1].startswith("health: False a scheduler process failed")
    assert lines[2].startswith("refused: ")
    assert lines[3] == "closed"
