"""The scripted engine: the engine contract without a model, for tests and for load.

One task ticks for all requests, as a scheduler steps. At each tick every running request emits what is due by the
clock, counted from its first tick, so paces do not drift; what a late tick missed comes as one longer chunk.
Prefixes are cached as in a radix tree, per salt. Standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence

from engine.answers import Form
from engine.checks import check_release, check_request
from engine.contract import (
    Chunk,
    EngineBusy,
    EngineError,
    EngineLost,
    FinishReason,
    GenerateRequest,
    Health,
    ModelCard,
    RequestRefused,
)
from engine.scripted_cache import PrefixCache
from engine.scripted_plan import check
from engine.scripted_request import ScriptedRequest, with_logprobs
from engine.scripted_splitter import ScriptedSplitter
from engine.scripted_tokenizer import END, VOCABULARY, ScriptedTokenizer
from engine.token_contract import Tokenizer

NAME = "scripted"
_SHORTEST_TICK = 0.001
"""Seconds. Faster paces give several tokens a tick."""
_ROUNDING = 1e-6
"""Of a token: so much may the sum of many ticks miss a whole number."""
_WINDOWS = 64
"""Full windows that the simulated KV cache holds."""


class ScriptedEngine:
    """`engine.contract.Engine` without a model.

    tokens_per_second: of each answer. ttft_ms: from a free place to the first token. context: window in
    tokens; page: of the KV cache, in tokens. max_running: answers at once; max_queued: requests waiting beyond
    them. fail_after: number of tokens, over all answers, after which the engine is lost (for tests of recovery).
    """

    def __init__(
        self,
        *,
        tokens_per_second: float = 50.0,
        ttft_ms: float = 20.0,
        context: int = 8192,
        page: int = 1,
        max_running: int = 512,
        max_queued: int = 512,
        fail_after: int | None = None,
        name: str = NAME,
        aliases: tuple[str, ...] = (),
    ) -> None:
        if tokens_per_second <= 0 or ttft_ms < 0:
            raise ValueError("tokens_per_second must be above 0 and ttft_ms at least 0")
        self._pace = tokens_per_second
        self._delay = ttft_ms / 1000.0
        self._max_running = max_running
        self._max_queued = max_queued
        self._fail_after = fail_after
        self._tokenizer = ScriptedTokenizer()
        kv_tokens = context * _WINDOWS
        self._card = ModelCard(
            name=name,
            aliases=aliases,
            context=context,
            kv_tokens=kv_tokens,
            page=page,
            vocab_size=VOCABULARY,
            end_ids=frozenset((END,)),
            template_hash=self._tokenizer.template_hash,
            thinking_switch=True,
        )
        self._cache = PrefixCache(kv_tokens)
        self._requests: dict[str, ScriptedRequest] = {}
        self._running: dict[str, ScriptedRequest] = {}
        self._waiting: deque[ScriptedRequest] = deque()
        self._arrived = asyncio.Event()
        self._ticker: asyncio.Task[None] | None = None
        self._lost = ""

    @property
    def card(self) -> ModelCard:
        """What is served."""
        return self._card

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of words and bytes."""
        return self._tokenizer

    async def start(self, report: Callable[[str], None]) -> None:
        """Start the ticking task."""
        if self._ticker is not None or self._lost:
            raise EngineError("the engine can be started once")
        self._ticker = asyncio.create_task(self._tick_for_ever(), name="scripted-ticks")
        report(f"{self._card.name} is ready")

    def splitter(self, form: Form) -> ScriptedSplitter | None:
        """Return what takes an answer of this form apart, None if it is all text. Raises RequestRefused."""
        check(form)
        return ScriptedSplitter(form) if form.thinking or form.calls else None

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Run one request, yielding a chunk per tick; the last has `finish`."""
        check_request(
            self._card, request.request_id, request.ids, request.sampling.max_tokens, request.logprobs
        )
        running = self._admit(ScriptedRequest.of(request))
        async with contextlib.aclosing(self._chunks(running)) as chunks:
            async for chunk in chunks:
                yield with_logprobs(chunk, request.logprobs)

    async def abort(self, request_id: str) -> None:
        """End a request at once; its last chunk says ABORT. Unknown ids are ignored."""
        running = self._requests.get(request_id)
        if running is not None:
            self._finish(running, FinishReason.ABORT)

    async def prefill(self, request_id: str, ids: Sequence[int], salt: str = "") -> int:
        """Put a prefix into the simulated cache; return how many tokens were cached already."""
        check_request(self._card, request_id, ids, 0)
        running = self._admit(ScriptedRequest(request_id, tuple(ids), salt, None, 0))
        async with contextlib.aclosing(self._chunks(running)) as chunks:
            async for _ in chunks:
                pass
        return running.cached

    async def release(self, ids: Sequence[int], keep: int = 0, salt: str = "") -> int:
        """Free cached prefixes from token `keep` on; return how many tokens."""
        check_release(ids, keep)
        if self._lost:
            raise EngineLost(self._lost)
        used = [(*r.ids, *r.answer) for r in self._running.values() if r.salt == salt]
        return self._cache.release(salt, ids, keep, used)

    async def health(self) -> Health:
        """Return a snapshot; never raises."""
        return Health(
            ok=self._ticker is not None and not self._lost,
            running=len(self._running),
            queued=len(self._waiting),
            kv_used=sum(len(r.ids) + len(r.answer) for r in self._running.values()),
            kv_tokens=self._card.kv_tokens,
            detail=self._lost,
            lost=bool(self._lost),
            kv_cached=len(self._cache),
        )

    def expert_load(self) -> None:
        """Return None: a script has no experts."""

    async def close(self) -> None:
        """Stop ticking. Idempotent."""
        self._lose("the engine was closed")
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)

    def _admit(self, running: ScriptedRequest) -> ScriptedRequest:
        """Queue a request. Raises EngineLost, EngineBusy, RequestRefused."""
        if self._ticker is None or self._lost:
            raise EngineLost(self._lost or "the engine has not started")
        if running.request_id in self._requests:
            raise RequestRefused(f"request {running.request_id} is running already")
        free = len(self._running) < self._max_running
        if not free and len(self._waiting) >= self._max_queued:
            raise EngineBusy("The request queue is full. Try again in a moment.")
        self._requests[running.request_id] = running
        self._waiting.append(running)
        self._fill_places()
        self._arrived.set()
        return running

    def _fill_places(self) -> None:
        """Let the longest waiting requests run."""
        now = asyncio.get_running_loop().time()
        while self._waiting and len(self._running) < self._max_running:
            running = self._waiting.popleft()
            running.first_due = now + self._delay
            self._running[running.request_id] = running

    async def _chunks(self, running: ScriptedRequest) -> AsyncGenerator[Chunk, None]:
        """Yield what the ticks emit; leaving early aborts the request."""
        try:
            finish = None
            while finish is None:
                await running.changed.wait()
                running.changed.clear()
                if running.error:
                    raise EngineLost(running.error)
                ids, running.unread, finish = tuple(running.unread), [], running.finish
                yield Chunk(ids, running.cached, finish)
        finally:
            self._finish(running, FinishReason.ABORT)

    async def _tick_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        tick = max(1.0 / self._pace, _SHORTEST_TICK)
        due = loop.time()
        while True:
            if not self._requests:
                self._arrived.clear()
                await self._arrived.wait()
                due = loop.time()
            self._tick(due)
            # Ticks keep to their grid; those that were missed are not made up for one by one.
            due = max(due + tick, loop.time())
            await asyncio.sleep(due - loop.time())

    def _tick(self, now: float) -> None:
        for running in list(self._running.values()):
            if now >= running.first_due:
                self._step(running, now)
            if self._lost:
                return

    def _step(self, running: ScriptedRequest, now: float) -> None:
        """Emit what is due for one request."""
        if not running.prefilled:
            running.prefilled = True
            running.first_due = now  # all are in step with the ticks: one token each, however late a tick is
            found, running.path = self._cache.enter(running.salt, running.ids)
            found = min(found, len(running.ids) - 1)  # the last one is always computed
            running.cached = found - found % self._card.page
        if running.sampling is None:
            self._finish(running, FinishReason.LENGTH)
            return
        due = min(int((now - running.first_due) * self._pace + _ROUNDING) + 1, running.sampling.max_tokens)
        while running.finish is None and len(running.answer) < due:
            finish = running.write()
            if finish is not None:
                self._finish(running, finish)
            self._count_to_failure()
        running.changed.set()

    def _finish(self, running: ScriptedRequest, finish: FinishReason) -> None:
        """End a request once and keep its KV; the last token's is never computed."""
        if self._requests.get(running.request_id) is not running:
            return
        del self._requests[running.request_id]
        if self._running.pop(running.request_id, None) is None:
            self._waiting.remove(running)
        self._fill_places()
        running.finish = finish
        if running.prefilled:
            self._cache.extend(running.path, running.answer[:-1])
        running.changed.set()

    def _count_to_failure(self) -> None:
        if self._fail_after is not None:
            self._fail_after -= 1
            if self._fail_after <= 0:
                self._lose("the engine failed as it was told to")

    def _lose(self, reason: str) -> None:
        self._lost = self._lost or reason
        for running in self._requests.values():
            running.error = self._lost
            running.changed.set()
        self._requests.clear()
        self._running.clear()
        self._waiting.clear()
