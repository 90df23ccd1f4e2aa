"""SGLang on the CPU platform computes what transformers computes.

DeepSeek-V3 has its own tests in `tests/engine/deepseek`.
"""

import asyncio

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
