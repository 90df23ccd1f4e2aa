"""Runs one arm: its conversations, all at once, through a whole engine role on a real store."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace

from chatserver.adapters.valkey import ValkeyStore
from chatserver.domain.response import Response
from chatserver.ports.turns import NewTurn
from chatserver.service.engine.worker import Worker
from chatserver.service.web.warmth import Warmth
from tests.bench.foreign import Foreign
from tests.bench.reuse.arms import Arm, Scene
from tests.bench.reuse.figures import Figures, Wait
from tests.bench.reuse.recording import Recording, think
from tests.bench.reuse.talk import Step
from tests.chatserver.service.engine_role import (
    ended,
    first_turn,
    next_turn,
    response_for,
    tokens_on_tape,
    worker,
)

ANSWER_TIMEOUT = 300.0
STOP_AFTER = 8
"""Tokens after which a user who stops an answer does so."""


class Conversing:
    """One arm under way. `think`: seconds that a user reads before the next message."""

    def __init__(self, store: ValkeyStore, engine: Recording, scene: Scene, arm: Arm, think: float) -> None:
        self.found = Figures()
        self._store = store
        self._engine = engine
        self._scene = scene
        self._arm = arm
        self._think = think
        self._known = 0
        # Different arms must not warm each other: their instructions differ from the first word on.
        self._options = {
            "truncation": arm.policy,
            "retention_ratio": arm.ratio,
            "model": engine.card.name,
            "instructions": f"{scene.name}, {arm.name}: answer briefly.",
        }

    async def run(self, talks: list[list[Step]]) -> Figures:
        """Hold all conversations, then have another tenant ask the same; return the figures."""
        found, engine = self.found, self._engine
        engine.start_over()
        async with worker(self._store, engine, lease=600) as role:
            if not self._arm.idle:
                role._parts.prefixes.want = lambda prefix: None
            if self._scene.reasoning:
                think(role._parts.prompts.encoder, engine.tokenizer)
            others = Foreign()
            await asyncio.gather(*(self._converse(role, n, steps) for n, steps in enumerate(talks)))
            found.foreign = others.share()
            found.idle, found.wasted = engine.idle, engine.wasted
            found.probe = await self._probe(talks[0][0].text)
        found.reuse = engine.cached / max(1, engine.reusable)
        found.share = engine.cached / max(1, engine.prompt)
        found.bound = self._known / max(1, engine.prompt)
        return found

    async def _converse(self, role: Worker, seed: int, steps: list[Step]) -> None:
        source = random.Random(seed)
        if self._scene.conversations > 1:
            await asyncio.sleep(source.uniform(0, self._think))
        before = None
        for number, step in enumerate(steps, start=1):
            told = await self._told(before, step)
            turn = self._turn(before, step)
            begun = await self._store.turns.begin(turn, queue_bound=1000)
            if step.kind == "stop":
                while await tokens_on_tape(self._store, begun.response_id) < STOP_AFTER:
                    await asyncio.sleep(0.005)
                await self._store.turns.stop(turn.response.tenant, begun.response_id, 0)
            answer = await ended(self._store, begun.response_id, ANSWER_TIMEOUT)
            assert answer.outcome.failure is None, answer.outcome.failure
            self._note(before, answer, step)
            if told is not None:
                usage, tokenizer = answer.outcome.usage, self._engine.tokenizer
                new = len(tokenizer.segment("user", step.text)) + len(tokenizer.cue())
                self.found.mistold.append(abs(told + new - (usage.prompt - usage.cached)))
            before = answer
            if number < len(steps):
                await self._read(role, source)

    async def _told(self, before: Response | None, step: Step) -> int | None:
        """Return what the cache endpoint says that the next turn must prefill beside its message; one user's only."""
        if before is None or step.kind not in ("ask", "stop") or self._scene.conversations > 1:
            return None
        warmth = Warmth(self._store.conversations, self._store.caches, self._store.registry)
        reports = await warmth.reports(before.tenant, before.conversation)
        return reports[0].prefix - reports[0].warm if reports else None

    async def _read(self, role: Worker, source: random.Random) -> None:
        """Let the user read. One user's time in which nothing is left to be done passes at once."""
        if self._scene.conversations > 1:
            await asyncio.sleep(self._think * source.uniform(0.5, 1.5))
            return
        await asyncio.sleep(0.05)
        until = time.monotonic() + self._think
        while not role._parts.prefixes.idle and time.monotonic() < until:
            await asyncio.sleep(0.01)

    def _turn(self, before: Response | None, step: Step) -> NewTurn:
        options = {**self._options, "max_output_tokens": step.tokens}
        if before is None:
            return first_turn(step.text, **options)
        turn = next_turn(before, step.text, **options)
        if step.kind == "regenerate":
            parent = before.inputs[-1] if before.inputs else before.parent
            response = response_for(conversation=before.conversation, parent=parent, **options)
            return replace(turn, response=response, items=(), exclusive=False)
        if step.kind == "edit" and before.inputs and before.parent:
            item = replace(turn.items[0], parent=before.parent)
            response = replace(turn.response, parent=before.parent)
            return replace(turn, response=response, items=(item,), exclusive=False)
        return turn

    def _note(self, before: Response | None, answer: Response, step: Step) -> None:
        found, usage, ledger = self.found, answer.outcome.usage, answer.outcome.ledger
        missed = usage.prompt - usage.cached
        found.prefill.append(missed)
        timing = answer.outcome.timing
        planned = timing.ttft_ms - timing.queued_ms - timing.engine_ttft_ms
        found.waits.append(Wait(timing.queued_ms, planned, timing.engine_ttft_ms, missed))
        found.dropped = max(found.dropped, ledger.start - ledger.pinned)
        if before is None:
            self._known += usage.cached  # instructions that another conversation has, too; all else is new
            return
        tokenizer = self._engine.tokenizer
        asked = 0 if step.kind == "regenerate" else len(tokenizer.segment("user", step.text))
        template = len(tokenizer.cue()) + len(tokenizer.tail((0,))) + 1
        known = usage.prompt - (asked + len(tokenizer.cue()) if asked else 1)
        self._known += known - known % self._scene.page
        found.over.append(max(0, missed - asked - template))
        found.cuts += ledger.cut != before.outcome.ledger.cut

    async def _probe(self, text: str) -> int:
        """Return how many tokens another tenant finds cached of a prompt that was sent."""
        turn = first_turn(text, **self._options, max_output_tokens=4)
        turn = replace(
            turn, response=replace(turn.response, tenant=f"not {self._scene.name}, {self._arm.name}")
        )
        begun = await self._store.turns.begin(turn, queue_bound=1000)
        async with asyncio.timeout(ANSWER_TIMEOUT):
            while True:
                answer = await self._store.turns.get(turn.response.tenant, begun.response_id)
                if answer.outcome is not None:
                    return answer.outcome.usage.cached
                await asyncio.sleep(0.01)
