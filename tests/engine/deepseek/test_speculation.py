"""Speculation with the draft layer (MTP) changes no token, greedy or sampled, however many drafts are right."""

from pathlib import Path

import pytest
import pytest_asyncio

from engine.contract import ModelUnusable
from engine.settings import EngineSettings, server_args

from ..served import Served
from .reference import Reference
from .test_proof import prompt

SAMPLED = {"temperature": 0.8, "top_k": 20, "seed": 5}
SIZE = {"context": 1024, "kv_tokens": 4096, "max_running": 8, "prefill_chunk": 48, "log_level": "info"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def speculating(drafting, tmp_path_factory):
    """Run the engine with speculation."""
    log = tmp_path_factory.mktemp("speculating") / "log"
    engine = await Served.start(log, model_path=drafting, extra={"speculative_algorithm": "NEXTN"}, **SIZE)
    yield engine
    await engine.close()


@pytest.mark.sglang
@pytest.mark.asyncio(loop_scope="module")
async def test_answers_are_those_without_speculation(speculating, drafting, tmp_path):
    """Greedy answers are transformers', with their log-probabilities; sampled ones are the plain engine's."""
    reference = Reference(drafting)
    prompts = [prompt(length, seed=7000 + length) for length in (1, 20, 47, 100)]
    greedy = await speculating.ask(*({"ids": ids, "max_tokens": 30} for ids in prompts))
    for ids, answer in zip(prompts, greedy, strict=True):
        reference.check(ids, answer)
    drafts = sum(steps - 1 for answer in greedy for steps in answer["steps"])
    assert 10 < drafts < 4 * 30 / 2  # some were right, some wrong
    mixed = [{"ids": ids, "max_tokens": 30, **SAMPLED} for ids in prompts] + [
        {"ids": prompts[1], "max_tokens": 9}
    ]
    sampled = await speculating.ask(*mixed)
    cut = await speculating.ask({"ids": [*prompts[1], *sampled[1]["ids"][:11]], "max_tokens": 19, **SAMPLED})
    assert cut[0]["ids"] == sampled[1]["ids"][11:]
    plain = await Served.start(tmp_path / "log", model_path=drafting, **SIZE)
    assert [a["ids"] for a in await plain.ask(*mixed)] == [a["ids"] for a in sampled]
    await plain.close()


@pytest.mark.sglang
@pytest.mark.asyncio(loop_scope="module")
async def test_rejected_drafts_leave_nothing_behind(speculating):
    """When nothing runs, every token of the pool is free or in the tree; draft layers are no load of experts."""
    state = await speculating.state()
    assert (state["health"]["kv_used"], state["health"]["kv_leaked"]) == (0, 0)
    assert [layer["layer"] for layer in state["experts"]["layers"]] == [1, 2, 3]


@pytest.mark.parametrize(
    ("key", "value"),
    [("speculative_num_steps", 3), ("speculative_eagle_topk", 2), ("speculative_num_draft_tokens", 4)],
)
def test_other_ways_to_speculate_are_refused(key, value):
    """One line that names the argument."""
    settings = EngineSettings(Path("model"), "model", extra={"speculative_algorithm": "NEXTN", key: value})
    with pytest.raises(ModelUnusable, match=f"^{key}: expected . on a CPU, got {value}$"):
        server_args(settings, 1024)
