"""The scripted engine beyond the contract: pace, pure script, readable text, faults."""

import ast
import asyncio
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import engine
from engine.contract import EngineLost, FinishReason
from engine.scripted import ScriptedEngine
from engine.scripted_cache import PrefixCache
from engine.scripted_script import Script
from engine.scripted_tokenizer import END, VOCABULARY, ScriptedTokenizer

from .conftest import prompt, request, run

IDS = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=40)


@given(ids=IDS, seed=st.integers(0, 2**63), split=st.integers(1, 59))
def test_the_script_is_a_function_of_ids_and_seed(ids, seed, split):
    """Any split of an answer continues it."""
    script = Script(ids, seed)
    answer = [script.next(may_end=False) for _ in range(60)]
    again = Script(ids + answer[:split], seed)
    assert [again.next(may_end=False) for _ in range(60 - split)] == answer[split:]


def test_answers_read_like_sentences_and_end():
    """Words and spaces, about 80 tokens, an end token last."""
    tokenizer = ScriptedTokenizer()
    lengths = []
    for seed in range(300):
        script = Script(tokenizer.cue(), seed)
        answer = []
        while not answer or answer[-1] != END:
            answer.append(script.next(may_end=True))
        lengths.append(len(answer))
        text = tokenizer.decode(answer)
        assert text.rstrip().endswith(".")
        assert text.count(" ") > len(answer) / 3
    assert 60 < sum(lengths) / len(lengths) < 110


@given(text=st.text())
def test_any_text_survives_the_tokenizer(text):
    """Words, bytes and everything between."""
    tokenizer = ScriptedTokenizer()
    ids = tokenizer.encode(text)
    decoder = tokenizer.decoder()
    assert tokenizer.decode(ids) == text
    assert "".join([decoder.push(i) for i in ids]) + decoder.flush() == text
    assert not {256, 257} & set(ids)


def test_special_strings_are_plain_text():
    """A user cannot end a message here either."""
    tokenizer = ScriptedTokenizer()
    assert tokenizer.segment("user", "<|im_end|>").count(END) == 1


async def test_the_pace_is_kept_without_drift():
    """Many answers at once each take ttft + tokens / pace."""
    scripted = ScriptedEngine(tokens_per_second=100, ttft_ms=30)
    await scripted.start(lambda phase: None)
    started = time.monotonic()
    answers = await asyncio.gather(
        *(run(scripted, request(prompt(scripted, f"{i}"), 51, ignore_end=True)) for i in range(100))
    )
    took = time.monotonic() - started
    await scripted.close()
    assert all((len(ids), finish) == (51, FinishReason.LENGTH) for ids, _, finish in answers)
    assert 0.53 <= took < 26  # one after the other: 53


async def test_a_told_failure_loses_every_request():
    """Requests in flight raise EngineLost, and so do new ones."""
    scripted = ScriptedEngine(tokens_per_second=1000, ttft_ms=0, fail_after=20)
    await scripted.start(lambda phase: None)
    results = await asyncio.gather(
        *(run(scripted, request(prompt(scripted, f"{i}"), 50, ignore_end=True)) for i in range(3)),
        return_exceptions=True,
    )
    assert all(isinstance(result, EngineLost) for result in results)
    with pytest.raises(EngineLost):
        await run(scripted, request(prompt(scripted, "Again."), 5))
    health = await scripted.health()
    assert not health.ok
    assert "failed" in health.detail
    await scripted.close()


async def test_closing_loses_what_runs_and_can_be_repeated():
    """Nobody waits for ever on a closed engine."""
    scripted = ScriptedEngine(tokens_per_second=10)
    await scripted.start(lambda phase: None)
    running = asyncio.create_task(run(scripted, request(prompt(scripted, "Long."), 500, ignore_end=True)))
    await asyncio.sleep(0)
    await scripted.close()
    await scripted.close()
    with pytest.raises(EngineLost, match="closed"):
        await running


def test_the_cache_is_bounded_and_evicts_ends_first():
    """The beginnings of prefixes stay longest, as in a radix tree."""

    def cached(salt, *prompt):
        cache = PrefixCache(10)
        _, path = cache.enter("", range(5))
        cache.extend(path, range(5, 8))
        cache.enter("", range(100, 106))
        return cache.enter(salt, prompt)[0]

    assert cached("", *range(100, 106), 0) == 6
    assert cached("", *range(8), 0) == 4
    assert cached("salt", *range(8), 0) == 0


def test_nothing_but_the_standard_library_is_imported():
    """The scripted engine is loaded where torch and SGLang are not installed."""
    folder = Path(engine.__file__).parent
    seen, todo = set(), ["engine.scripted"]
    while todo:
        module = todo.pop()
        seen.add(module)
        source = (folder / f"{module.removeprefix('engine.')}.py").read_text(encoding="utf-8")
        for node in ast.parse(source).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in names:
                if name.startswith("engine."):
                    todo += [name] if name not in seen else []
                else:
                    assert name.split(".")[0] in sys.stdlib_module_names, (module, name)
    assert {"engine.scripted", "engine.contract"} < seen
