"""The running schedulers: requests on them, questions to them, and a watch over them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from engine.contract import Chunk, EngineError, EngineLost, EngineStalled
from engine.runtime import Runtime
from engine.scheduler_messages import PoolState
from engine.settings import EngineSettings, patience
from engine.watchdog import Wait, Watchdog

PING_SECONDS = 2.0
"""How long the answer to a ping is waited for; schedulers that compute a long prompt answer later."""
RELEASE_SECONDS = 10.0
WATCH_SECONDS = 2.0
"""Seconds between two looks of the watchdog."""
WORK_SECONDS = 0.02
"""Processor time between two looks that shows a scheduler at work; a stuck one's idle threads use less."""
AWAY_SECONDS = 0.5
"""A look that comes later than that was held up here (a stopped process, a machine that is overrun)."""


class Schedulers:
    """What a started engine asks of its schedulers. `lost`: resolves with the reason when they are gone for good.

    Run `keep_watch()` as a task.
    """

    def __init__(
        self,
        runtime: Runtime,
        settings: EngineSettings,
        lost: asyncio.Future[str],
        lose: Callable[[str], None],
    ) -> None:
        self._runtime = runtime
        self._settings = settings
        self._lost = lost
        self._lose = lose
        self._watchdog = Watchdog(settings.silence, time.monotonic())
        self._used = runtime.processor_seconds()
        self._exchange = runtime.exchange
        lost.add_done_callback(lambda _: self._exchange.fail(self._loss()))
        self.pool: PoolState | None = None
        """The KV pool as it was when nothing ran last."""

    @property
    def running(self) -> int:
        """Return how many requests are under way."""
        return len(self._watchdog.waits)

    def loads(self) -> list[Any]:
        """Return each attention group's own snapshot of its load. Raises OSError, ValueError."""
        return self._runtime.manager.load_snapshot_reader.read_all()

    async def run(
        self,
        request_id: str,
        ids: Sequence[int],
        sampling: dict[str, Any],
        salt: str,
        logprobs: int | None = None,
        *,
        thinks: bool = False,
    ) -> AsyncGenerator[Chunk, None]:
        """Yield what comes of one request; leaving early aborts it.

        `thinks`: its grammar waits for the end of the reasoning.

        Raises RequestRefused (also for an id that is running), EngineBusy, EngineStalled, EngineLost.
        """
        if self._lost.done():
            raise self._loss()
        wait, exchange, waits = Wait(patience(self._settings, len(ids))), self._exchange, self._watchdog.waits
        stream = exchange.open(request_id, ids, sampling, wait, salt=salt, logprobs=logprobs, thinks=thinks)
        waits[request_id] = wait
        try:
            while True:
                chunk = await stream.take()
                yield chunk
                if chunk.finish is not None:
                    return
        finally:
            del waits[request_id]
            exchange.close(request_id, abort=not self._lost.done())

    def abort(self, request_id: str) -> None:
        """Ask for a request's end. Unknown ids are ignored."""
        self._exchange.abort(request_id)

    async def release(self, ids: Sequence[int], keep: int, salt: str) -> int:
        """Free cached prefixes from token `keep` on; return how many tokens. Raises EngineError: no answer in time."""
        try:
            return await self._runtime.release(ids, keep, salt, RELEASE_SECONDS)
        except TimeoutError:
            raise EngineError(f"the scheduler did not answer within {RELEASE_SECONDS:.0f} s") from None

    async def ping(self) -> bool:
        """Ask how the KV pool is; say whether all groups answered in time."""
        try:
            self.pool = await self._runtime.pool(PING_SECONDS) or self.pool
            return True
        except TimeoutError:
            return False
        finally:
            # Any message is a sign of life, also a late answer or another request's token.
            self._watchdog.heard(self._exchange.received, time.monotonic())

    async def keep_watch(self) -> None:
        """Lose schedulers that say nothing, end requests that get nothing, until cancelled."""
        while True:
            pause, asleep = min(WATCH_SECONDS, self._settings.silence / 4), time.monotonic()
            await asyncio.sleep(pause)
            asked = time.monotonic()
            answered = await self.ping()
            now = time.monotonic()
            late = max(0.0, asked - asleep - pause) + max(0.0, now - asked - PING_SECONDS)
            if late > AWAY_SECONDS:
                self._watchdog.away(late)
            self._look_at_work(now)
            if (silent := self._watchdog.silent(now)) is not None:
                self._lose(f"the scheduler said nothing for {silent:.0f} s")
            # Schedulers that do not answer are computing, or are lost soon: then the answers go on elsewhere.
            for request_id in self._watchdog.stalled(now) if answered else ():
                waited = self._watchdog.waits[request_id].patience
                self._exchange.fail_one(request_id, EngineStalled(f"no token came for {waited:.0f} s"))

    def _look_at_work(self, now: float) -> None:
        """Note whether the schedulers have computed since the last look."""
        used = self._runtime.processor_seconds()
        if used - self._used > WORK_SECONDS:
            self._watchdog.worked_at = now
        self._used = used

    def _loss(self) -> EngineLost:
        return EngineLost(f"{self._lost.result()}; the answer can be continued on a new engine")
