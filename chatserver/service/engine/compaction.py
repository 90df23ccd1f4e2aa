"""Idle work: summaries of what cuts dropped, written while nobody waits for an answer.

    a turn ends, its cut moves ─> wanted ─> the model writes ─> stored beside the branch ─> the new prefix is wanted
                                     └ a job is claimed: aborted within one step, tried again later

Nothing depends on a summary: without one the cut is a plain cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from secrets import token_hex

from chatserver.errors import ChatServerError, NotFound
from chatserver.ports.conversations import Conversations
from chatserver.service.engine.prefixes import SETTLE, Prefixes
from chatserver.service.engine.prompting import PromptBuilder
from chatserver.service.engine.summaries import Compaction, summary_item
from chatserver.service.engine.wanted import Prefix
from engine.contract import (
    REQUEST_ID_LENGTH,
    Engine,
    EngineError,
    EngineLost,
    FinishReason,
    GenerateRequest,
    Sampling,
)

log = logging.getLogger(__name__)

MAX_WANTED = 64
"""Summaries that wait; past it the one that waits longest is dropped: its cut stays a plain cut for now."""
MAX_TRIES = 8
"""Times that a summary is begun: on an engine that is hardly ever idle it is given up."""
TIME_LIMIT = 300.0
"""Seconds for one summary."""


@dataclass(slots=True)
class CompactionCounts:
    """Since the start. `prompt`, `cached`, `output`: tokens of all tries together."""

    written: int = 0
    aborted: int = 0
    failed: int = 0
    prompt: int = 0
    cached: int = 0
    output: int = 0


@dataclass(slots=True)
class _Wanted:
    compaction: Compaction
    tries: int = 0


class Compactor:
    """Writes summaries in idle time, one at a time. Run `run()` as a task. `salt`: of a tenant's KV cache."""

    def __init__(
        self,
        engine: Engine,
        prompts: PromptBuilder,
        conversations: Conversations,
        prefixes: Prefixes,
        salt: Callable[[str], str],
    ) -> None:
        self._engine = engine
        self._prompts = prompts
        self._conversations = conversations
        self._prefixes = prefixes
        self._salt = salt
        self._wanted: OrderedDict[str, _Wanted] = OrderedDict()
        self._holds: set[object] = set()
        self._request: str | None = None
        self._paused = False
        self._stir = asyncio.Event()
        self._aborts: set[asyncio.Task[None]] = set()
        self.counts = CompactionCounts()
        """What it came to."""

    def want(self, compaction: Compaction) -> None:
        """Have a summary written; it takes the place of the conversation's earlier one."""
        self._wanted.pop(compaction.conversation, None)
        self._wanted[compaction.conversation] = _Wanted(compaction)
        if len(self._wanted) > MAX_WANTED:
            self._wanted.popitem(last=False)
        self._stir.set()

    def hold(self, turn: object) -> None:
        """A turn begins: what is being written stops within one step."""
        self._holds.add(turn)
        if self._request is not None and not self._paused:
            self._paused = True
            task = asyncio.ensure_future(self._engine.abort(self._request))
            self._aborts.add(task)
            task.add_done_callback(self._aborts.discard)

    def release(self, turn: object) -> None:
        """A turn has ended."""
        self._holds.discard(turn)
        self._stir.set()

    @property
    def idle(self) -> bool:
        """Whether nothing is being written or waits to be."""
        return self._request is None and not self._wanted

    async def run(self) -> None:
        """Write what is wanted until cancelled. Raises EngineLost."""
        while True:
            self._stir.clear()
            if self._holds or not self._wanted:
                await self._stir.wait()
                continue
            await asyncio.sleep(SETTLE)
            if not self._holds and self._wanted:
                _, wanted = self._wanted.popitem(last=False)
                await self._attend(wanted)

    async def _attend(self, wanted: _Wanted) -> None:
        """Write one; what goes wrong costs the summary and nothing else."""
        wanted.tries += 1
        self._request, self._paused = token_hex(REQUEST_ID_LENGTH // 2), False
        try:
            async with asyncio.timeout(TIME_LIMIT):
                done = await self._write(self._request, wanted)
        except EngineLost:
            raise
        except (EngineError, ChatServerError, TimeoutError) as error:
            done = True
            self.counts.failed += 1
            log.warning("no summary for %s: %s", wanted.compaction.conversation, error or "it took too long")
        finally:
            self._request = None
        if not done and wanted.tries < MAX_TRIES:
            self._wanted.setdefault(wanted.compaction.conversation, wanted)

    async def _write(self, request_id: str, wanted: _Wanted) -> bool:
        """Return False if it was stopped and is to be tried again."""
        asked, engine = wanted.compaction, self._engine
        sampling = Sampling(asked.most, temperature=0.0)
        request = GenerateRequest(request_id, asked.ids, sampling, self._salt(asked.wish.tenant))
        ids: list[int] = []
        cached, finish = 0, None
        async with contextlib.aclosing(engine.generate(request)) as chunks:
            async for chunk in chunks:
                ids.extend(chunk.ids)
                cached, finish = min(chunk.cached, len(asked.ids)), chunk.finish
        self._count(len(asked.ids), cached, len(ids))
        if self._paused or finish is FinishReason.ABORT:
            self.counts.aborted += 1
            return False
        proper = ids[engine.tokenizer.shown(ids).reasoning :]
        await self._store(wanted, engine.tokenizer.decode(proper).strip(), (len(asked.ids), cached, len(ids)))
        return True

    async def _store(self, wanted: _Wanted, text: str, cost: tuple[int, int, int]) -> None:
        asked, tenant = wanted.compaction, wanted.compaction.wish.tenant
        if not text:
            self.counts.failed += 1
            log.warning("no summary for %s: the model wrote nothing", asked.conversation)
            return
        item = summary_item(asked.covers, text, cost, int(time.time()))
        ids, template_hash = self._prompts.summaries.encode(text), self._engine.card.template_hash
        with contextlib.suppress(NotFound):  # removed meanwhile: nothing is left to be summarised
            await self._conversations.place(
                tenant, asked.conversation, item, ids, template_hash, payer=asked.wish
            )
            self.counts.written += 1
            upcoming = await self._prompts.upcoming_of(tenant, asked.conversation)
            if upcoming is not None:
                leaf = asked.wish.item_id
                self._prefixes.want(
                    Prefix(asked.conversation, self._salt(tenant), upcoming.ids, upcoming.cut, leaf, turns=1)
                )

    def _count(self, prompt: int, cached: int, output: int) -> None:
        self.counts.prompt += prompt
        self.counts.cached += cached
        self.counts.output += output
