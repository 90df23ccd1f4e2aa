"""The running schedulers: requests on them, questions to them, and a watch over them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any

from engine.contract import EngineError, EngineLost, EngineStalled, RequestRefused
from engine.runtime import Runtime, generate_input
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
        self._steps: dict[str, asyncio.Future[Any]] = {}
        self._used = runtime.processor_seconds()
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
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield SGLang's outputs for one request; leaving early aborts it.

        `thinks`: its grammar waits for the end of the reasoning.

        Raises RequestRefused (also for an id that is running), EngineStalled, EngineLost.
        """
        waits = self._watchdog.waits
        if request_id in waits:
            raise RequestRefused(f"request {request_id} is running already")
        manager = self._runtime.manager
        source = generate_input(request_id, list(ids), sampling, salt, logprobs, thinks=thinks)
        outputs = manager.generate_request(source, None)
        waits[request_id] = wait = Wait(patience(self._settings, len(ids)))
        try:
            while (output := await self._next(request_id, wait, outputs)) is not None:
                yield output
        except ValueError as error:
            raise RequestRefused(str(error)) from error
        finally:
            del waits[request_id]
            # A request that ended is unknown to SGLang by now, and the abort does nothing.
            if not self._lost.done():
                manager.abort_request(request_id)
            await outputs.aclose()

    def abort(self, request_id: str) -> None:
        """Ask for a request's end. Unknown ids are ignored."""
        if request_id in self._watchdog.waits:
            self._runtime.manager.abort_request(request_id)

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
            self._watchdog.heard(self._runtime.manager.last_receive_tstamp, time.monotonic())

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
                self._steps[request_id].cancel()

    def _look_at_work(self, now: float) -> None:
        """Note whether the schedulers have computed since the last look."""
        used = self._runtime.processor_seconds()
        if used - self._used > WORK_SECONDS:
            self._watchdog.worked_at = now
        self._used = used

    async def _next(self, request_id: str, wait: Wait, outputs: AsyncIterator[Any]) -> dict[str, Any] | None:
        """Return the next output, None at the end. Raises EngineLost as soon as the engine is lost, EngineStalled."""
        step: asyncio.Future[Any] = asyncio.ensure_future(anext(outputs, None))
        self._steps[request_id], wait.since = step, time.monotonic()
        try:
            await asyncio.wait((step, self._lost), return_when=asyncio.FIRST_COMPLETED)
        finally:
            wait.since = None
            del self._steps[request_id]
            if not step.done():
                step.cancel()
                await asyncio.gather(step, return_exceptions=True)
        if not step.cancelled():
            return step.result()
        if self._lost.done():
            raise EngineLost(f"{self._lost.result()}; the answer can be continued on a new engine")
        raise EngineStalled(f"no token came for {wait.patience:.0f} s")
