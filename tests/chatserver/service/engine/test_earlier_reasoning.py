"""A template that drops earlier reasoning: the ids are rewritten once, told, and made in idle time."""

from __future__ import annotations

import asyncio

from chatserver.domain.ledger import Difference
from engine.scripted_tokenizer import ScriptedTokenizer
from engine.token_contract import Difference as Found
from engine.token_contract import Shown
from tests.chatserver.service.engine.test_going_on import asked, web_of
from tests.chatserver.service.engine_role import ended, first_turn, next_turn, run_turn, scripted, worker

THOUGHT = 8
"""Tokens of an answer that the template drops later."""


class Thinking(ScriptedTokenizer):
    """The first tokens of every answer are its reasoning."""

    def shown(self, emitted, thinking=None) -> Shown:
        whole = super().shown(emitted).ids
        if len(emitted) <= THOUGHT:
            return super().shown(emitted)
        ids = (*self.cue(), *emitted[THOUGHT:], *self.tail(emitted))
        return Shown(ids, THOUGHT, Found("reasoning", len(self.cue()), len(whole), len(ids), rewritten=True))


async def test_reasoning_goes_and_the_next_turn_is_warm(store):
    """The next prompt has the answer alone, and idle time has computed it."""
    async with scripted() as engine:
        engine._tokenizer = Thinking()
        async with worker(store, engine) as role:
            first = await run_turn(store, first_turn("Hi", max_output_tokens=40))
            ledger = first.outcome.ledger
            whole = len(engine.tokenizer.cue()) + 40 + len(engine.tokenizer.tail((0,)))
            at = len(engine.tokenizer.cue())
            assert ledger.difference == Difference("reasoning", at, whole, whole - THOUGHT, rewritten=True)
            assert first.outcome.usage.reasoning == THOUGHT
            branch = await store.conversations.branch(
                "tests", first.conversation, first.item_id, with_ids=True
            )
            assert len(branch[-1].emitted) == 40
            assert (
                branch[-1].emitted[THOUGHT:] == branch[-1].ids[len(engine.tokenizer.cue()) :][: 40 - THOUGHT]
            )
            async with asyncio.timeout(60):
                while not (role._parts.prefixes.idle and role._parts.prefixes.counts.computed):
                    await asyncio.sleep(0.01)
            second = await run_turn(store, next_turn(first, "And?"))
            usage = second.outcome.usage
            new = len(engine.tokenizer.segment("user", "And?")) + len(engine.tokenizer.cue())
            assert usage.prompt - usage.cached <= new


async def test_an_answer_goes_on_with_its_reasoning(store):
    """What the model wrote is what it goes on from, although later prompts show less of it."""
    ask = {"temperature": 0, "ignore_eos": True, "max_output_tokens": 20, "truncation": "auto"}
    async with scripted() as engine:
        engine._tokenizer = Thinking()
        async with worker(store, engine):
            while not await store.registry.models():
                await asyncio.sleep(0.005)
            chat = web_of(store)
            whole = await asked(chat, store, input="Hi", **{**ask, "max_output_tokens": 40})
            part = await asked(chat, store, input="Hi", **ask)
            more = await asked(chat, store, **{"continue": part.id})
            assert more.outcome.item.text == whole.outcome.item.text
            assert (part.outcome.usage.reasoning, more.outcome.usage.reasoning) == (THOUGHT, 0)
            assert (await ended(store, more.id)).outcome.ledger.carried == 20
