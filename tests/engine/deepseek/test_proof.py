"""The real engine computes DeepSeek-V3 as transformers does, on one rank and on several, however a prompt arrives."""

import asyncio
import random

import pytest
import pytest_asyncio

from ..served import Served
from .conftest import DIMENSIONS
from .reference import Reference

pytestmark = [pytest.mark.sglang, pytest.mark.asyncio(loop_scope="module")]

CHUNK = 48
"""Prompt tokens that a step computes at most: longer prompts are prefilled in chunks."""
SPREADS = {"one rank": (1, 1), "TP 2": (2, 1), "TP 2 x EP 2": (2, 2)}


@pytest.fixture(scope="module")
def reference(folder) -> Reference:
    """Return transformers' model of it."""
    return Reference(folder)


@pytest.fixture(scope="module", params=SPREADS)
def spread(request) -> str:
    """Return each spread in turn."""
    return request.param


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(spread, folder, tmp_path_factory):
    """Run the engine in each spread."""
    tp, ep = SPREADS[spread]
    log = tmp_path_factory.mktemp("served") / "log"
    engine = await Served.start(
        log,
        model_path=folder,
        tp=tp,
        ep=ep,
        context=1024,
        kv_tokens=16_384,
        max_running=32,
        prefill_chunk=CHUNK,
        log_level="info",
    )
    yield engine
    await engine.close()


def prompt(length: int, seed: int) -> list[int]:
    """Return random ids behind a beginning-of-text token."""
    chosen = random.Random(seed)
    return [1, *(chosen.randrange(20, DIMENSIONS.vocab_size) for _ in range(length - 1))]


async def test_greedy_answers_are_transformers(served, reference):
    """Forty tokens of four prompts equal `generate`'s, one request at a time."""
    prompts = [prompt(length, seed=length) for length in (1, 7, 23, 41)]
    answers = await served.ask(*({"ids": ids, "max_tokens": 40} for ids in prompts), at_once=False)
    for ids, answer in zip(prompts, answers, strict=True):
        assert answer["ids"] == await asyncio.to_thread(reference.greedy, ids, 40)
        reference.check(ids, answer)


async def test_prompts_in_chunks(served, reference):
    """Prompts around and over the chunk: a token less, exactly, a token more, several; no step computes more."""
    before = len(served.prefills())
    prompts = [prompt(length, seed=1000 + length) for length in (CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 300)]
    for ids in prompts:
        (answer,) = await served.ask({"ids": ids, "max_tokens": 4, "salt": f"chunks {len(ids)}"})
        reference.check(ids, answer)
    steps = served.prefills()[before:]
    assert max(steps) == CHUNK
    assert sum(steps) == sum(map(len, prompts))
    assert len(steps) == 1 + 1 + 2 + 2 + 7


async def test_mixed_lengths_in_one_batch(served, reference):
    """Sixteen prompts of 1 to 257 tokens with answers of 1 to 16 tokens, all at once."""
    lengths = (1, 2, 3, 4, 5, 8, 13, 21, 34, 47, 48, 49, 64, 96, 144, 257)
    prompts = [prompt(length, seed=2000 + length) for length in lengths]
    asked = [{"ids": ids, "max_tokens": count} for count, ids in enumerate(prompts, 1)]
    for ids, count, answer in zip(prompts, range(1, 17), await served.ask(*asked), strict=True):
        assert len(answer["ids"]) == count
        reference.check(ids, answer)


async def test_prefix_hits_of_every_length(served, reference):
    """Behind a cached prompt of 64 tokens: 0, 1, … 64 of them shared, then other tokens. Each hit is exact."""
    cached = prompt(64, seed=3000)
    salted = {"salt": "every length", "max_tokens": 2}
    await served.ask({"ids": cached, **salted})
    prompts = [[*cached[:k], *prompt(3, seed=4000 + k)[1:]] for k in range(len(cached) + 1)]
    answers = await served.ask(*({"ids": ids, **salted} for ids in prompts))
    assert [answer["cached"] for answer in answers] == list(range(len(cached) + 1))
    for ids, answer in zip(prompts, answers, strict=True):
        reference.check(ids, answer)


async def test_a_prompt_that_is_cached_whole(served, reference):
    """All but the last token come from the cache, with the same answer as before."""
    ids = prompt(64, seed=3100)
    asked = {"ids": ids, "max_tokens": 8, "salt": "whole"}
    first, second = await served.ask(asked, asked, at_once=False)
    assert (first["cached"], second["cached"]) == (0, 63)
    assert first["ids"] == second["ids"]
    reference.check(ids, first)
    reference.check(ids, second)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.7, "top_k": 20, "seed": 77}])
async def test_cut_and_continue(served, reference, sampling):
    """An answer that is cut after any token goes on as if it had not been, greedy and sampled."""
    ids = prompt(30, seed=5000)
    asked = {"salt": f"cut {sorted(sampling)}", **sampling}
    (whole,) = await served.ask({"ids": ids, "max_tokens": 20, **asked})
    cuts = range(20)
    parts = await served.ask(
        *({"ids": [*ids, *whole["ids"][:k]], "max_tokens": 20 - k, **asked} for k in cuts)
    )
    for k, part in zip(cuts, parts, strict=True):
        assert part["ids"] == whole["ids"][k:], k
        assert part["cached"] == len(ids) + k - 1
        if not sampling:
            reference.check([*ids, *whole["ids"][:k]], part)


async def test_a_prefix_is_released_on_every_rank(served, reference):
    """Behind what is kept nothing is cached any more, of another tenant all; pool and answers stay whole."""
    ids = prompt(64, seed=3200)
    mine, other = ({"ids": ids, "max_tokens": 8, "salt": salt} for salt in ("mine", "other"))
    first, _ = await served.ask(mine, other)
    assert await served.release([*ids, *first["ids"]], 20, "mine") == 64 + 7 - 20
    assert await served.release([*ids, *first["ids"]], 20, "mine") == 0
    health = (await served.state())["health"]
    assert (health["kv_used"], health["kv_leaked"]) == (0, 0)
    again, kept = await served.ask(mine, other)
    assert (again["cached"], kept["cached"]) == (20, 63)
    assert again["ids"] == kept["ids"] == first["ids"]
    reference.check(ids, again)


async def test_the_pool_is_whole_and_as_large_as_the_formula_says(served):
    """Layers x (kv_lora + rope) x 4 bytes a token, on every rank; nothing is held when nothing runs."""
    state = await served.state()
    assert (state["health"]["running"], state["health"]["kv_used"]) == (0, 0)
    formula = DIMENSIONS.num_hidden_layers * (DIMENSIONS.kv_lora_rank + DIMENSIONS.qk_rope_head_dim) * 4
    measured = state["memory"]["kvcache"] * 2**30 / state["card"]["kv_tokens"]
    assert measured == pytest.approx(formula, rel=0.03)  # SGLang tells thousandths of a GiB: 20 of them here


async def test_expert_load_is_counted(served, spread):
    """Each token goes to `num_experts_per_tok` experts a layer, and is counted once by however many ranks."""
    before = (await served.state())["experts"]
    prompts = [prompt(50, seed=6000 + i) for i in range(4)]
    await served.ask(*({"ids": ids, "max_tokens": 11, "salt": f"load {ids[1]}"} for ids in prompts))
    after = (await served.state())["experts"]
    layers = range(DIMENSIONS.first_k_dense_replace, DIMENSIONS.num_hidden_layers)
    assert [layer["layer"] for layer in after["layers"]] == list(layers)
    for old, new in zip(before["layers"], after["layers"], strict=True):
        assert len(new["ranks"]) == SPREADS[spread][1]
        assert sum(new["ranks"]) - sum(old["ranks"]) == 4 * (50 + 10) * DIMENSIONS.num_experts_per_tok
        assert new["experts"] == DIMENSIONS.n_routed_experts
        assert sum(new["ranks"]) / new["experts"] < new["busiest"] < sum(new["ranks"])
