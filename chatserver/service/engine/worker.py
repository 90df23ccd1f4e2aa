"""The engine role: claims jobs, runs their turns, keeps its leases, says how it is.

commands (wake, stop) ─┐
claim ── Turn ── Turn ──┼── leases renewed · other engines' lost jobs reaped · report renewed
tape writer ───────────┘      idle work (see `prefixes`) behind all turns
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, replace

from chatserver.domain.response import Response
from chatserver.errors import ChatServerError, Unavailable
from chatserver.ports.caches import Caches, Count, Look, Release, Warm
from chatserver.ports.registry import EngineReport, EngineState, Registry
from chatserver.ports.tapes import Command, Signals, Stop
from chatserver.ports.turns import MAX_CLAIM
from chatserver.service.engine import reports
from chatserver.service.engine.abandoned import Abandoned, Watchers
from chatserver.service.engine.outlook import Outlook
from chatserver.service.engine.turn import Turn, TurnParts
from engine.contract import EngineLost, Health

log = logging.getLogger(__name__)

SCAN_INTERVAL = 1.0
"""Seconds after which queues are looked at even if no wake-up came (wake-ups may be lost)."""

GATHER = 0.004
"""Seconds between two claims while jobs come one by one: shorter than a scheduler's step, and one claim then takes
what would have been several. The first one after a pause is not held up."""

TOGETHER = 4
"""Turns that begin before the loop sees to others: about 1 ms. First tokens need not wait for 32 prompts to be made."""

CLAIM_AGAIN = 0.5
"""Seconds between two tries while the store is away."""

REPORT_INTERVAL = 2.0
REPORT_TTL = 7.0


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """`max_running` answers at once; leases of `lease` seconds; `drain` seconds to finish what runs when stopping.

    `abandon_after` seconds without a reader (0 = never) answers are `abandoned`.
    """

    max_running: int
    lease: float
    drain: float
    abandon_after: float = 0.0
    abandoned: Abandoned = Abandoned.STOP


class Worker:
    """One engine process's share of the work. `run()` until cancelled; then `drain()`."""

    def __init__(
        self,
        engine_id: str,
        parts: TurnParts,
        signals: Signals,
        registry: Registry,
        limits: WorkerLimits,
        *,
        caches: Caches,
    ) -> None:
        self._engine_id = engine_id
        self._parts = parts
        self._signals = signals
        self._registry = registry
        self._limits = limits
        self._outlook = Outlook(
            engine_id, parts.prompts, parts.prefixes, caches, parts.salt, page=parts.engine.card.page
        )
        self._watchers = Watchers(parts.turns, limits.abandon_after, limits.abandoned)
        self._running: dict[str, tuple[Turn, asyncio.Task[None]]] = {}
        self._wake = asyncio.Event()
        self._listens = asyncio.Event()
        self._short = False
        """Whether places were what the last claim was short of: then one that becomes free is news."""
        self._engines = 1
        """Those that share the queue, as of the last report."""
        self._report = EngineReport(engine_id, EngineState.READY, "ready", time.time())
        self._leaked = 0

    async def run(self) -> None:
        """Work until cancelled. Raises EngineLost or Unavailable when the process must be restarted."""
        async with contextlib.aclosing(self._outlook), asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._parts.writer.run(), name="tape writer")
            group.create_task(self._listen(), name="commands")
            group.create_task(self._claim(), name="claims")
            group.create_task(self._keep_leases(), name="leases")
            group.create_task(self._keep_reporting(), name="report")
            group.create_task(self._watchers.run(self._turns, self._limits.max_running), name="watchers")
            group.create_task(self._parts.prefixes.run(), name="idle work")
            group.create_task(self._parts.compactor.run(), name="summaries")

    async def drain(self) -> None:
        """Let running turns finish for `limits.drain` seconds; give the rest back for another engine.

        Call it while `run()` still runs (turns need the writer); nothing new is claimed from now on.
        """
        self._report = replace(
            self._report, state=EngineState.DRAINING, detail="finishing answers", since=time.time()
        )
        self._parts.compactor.hold(self)
        self._parts.prefixes.hold(self, None)  # for good: nothing that is made now is of use
        tasks = [task for _, task in self._running.values()]
        if tasks:
            log.info("finishing %d answers (at most %.0f s)", len(tasks), self._limits.drain)
            await asyncio.wait(tasks, timeout=self._limits.drain)
        left = [turn for turn, task in self._running.values() if not task.done()]
        for turn in left:
            turn.lose()
        handed_over = await self._parts.turns.release(self._engine_id)
        if handed_over:
            log.info("handed over %d answers", handed_over)
        await self._registry.drop(self._engine_id)

    def _turns(self) -> dict[str, Turn]:
        return {response_id: turn for response_id, (turn, _) in self._running.items()}

    @property
    def _draining(self) -> bool:
        return self._report.state is EngineState.DRAINING

    async def _listen(self) -> None:
        while True:
            try:
                async for command in self._signals.commands(self._engine_id):
                    self._obey(command)
            except Unavailable as error:
                log.warning("no commands from the store (%s); trying again", error.message)
                await asyncio.sleep(0.5)

    def _obey(self, command: Command | None) -> None:
        if isinstance(command, Stop):
            if command.response_id in self._running:
                self._running[command.response_id][0].stop()
        elif isinstance(command, Warm | Look | Release | Count):
            self._outlook.obey(command)
        else:
            self._listens.set()
            self._wake.set()  # None: the subscription stands, and something may have come before it

    async def _claim(self) -> None:
        while True:
            self._wake.clear()
            most = 0 if self._draining else min(self._places, MAX_CLAIM)
            self._short = most <= 0
            try:
                emptied = not self._short and await self._claim_up_to(most)
            except Unavailable as error:
                log.warning("cannot claim jobs (%s); trying again", error.message)
                emptied = False
                await asyncio.sleep(CLAIM_AGAIN)
            if emptied:
                self._let_go_on()
            if emptied or self._short:
                await self._wait_for_work()

    async def _claim_up_to(self, most: int) -> bool:
        """Begin up to `most` of the waiting jobs. Return whether none was there."""
        lease, engines = self._limits.lease, self._engines
        claimed = await self._parts.turns.claim(self._engine_id, lease=lease, most=most, engines=engines)
        for number, response in enumerate(claimed):
            if number and number % TOGETHER == 0:
                for _ in range(
                    2
                ):  # what has come is read in one turn of the loop, and acted upon in the next
                    await asyncio.sleep(0)
            self._begin(response)
        if 0 < len(claimed) < most:
            await asyncio.sleep(GATHER)
        return not claimed

    @property
    def _places(self) -> int:
        """Places in the scheduler that are free. Answers that gave way take none, but their number is bounded."""
        free = self._limits.max_running - len(self._running)
        if free >= MAX_CLAIM:
            return free
        waiting = sum(turn.waits for turn, _ in self._running.values())
        return free + min(waiting, self._limits.max_running)

    def _let_go_on(self) -> None:
        """Nobody else waits: let those that gave way have the free places, the oldest first."""
        gave_way = [turn for turn, _ in self._running.values() if turn.waits]
        self._short = bool(gave_way)
        for turn in gave_way[: max(0, self._places)]:
            turn.go_on()

    async def _wait_for_work(self) -> None:
        # Not wait_for: Python 3.11's swallows a cancellation that comes as the event is set.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SCAN_INTERVAL):
                await self._wake.wait()

    def _begin(self, response: Response) -> None:
        turn = Turn(self._parts, response)
        self._parts.prefixes.hold(turn, response.conversation)
        self._parts.compactor.hold(turn)
        earlier = self._running.get(response.id)
        task = self._group.create_task(self._attend(turn, response.id, earlier), name=response.id)
        self._running[response.id] = (turn, task)

    async def _attend(
        self, turn: Turn, response_id: str, earlier: tuple[Turn, asyncio.Task[None]] | None
    ) -> None:
        """Run a turn. `earlier`: the same answer under an older claim, which this engine lost and got again."""
        try:
            if earlier is not None:
                earlier[0].lose()
                await asyncio.wait((earlier[1],))
            await turn.run()
        except Unavailable as error:
            # The lease runs out, and the job is claimed again: by us or by another engine.
            log.warning("answer %s is left for another try: %s", response_id, error.message)
        except EngineLost as error:
            log.error("the engine is gone: %s", error)
            raise
        except ChatServerError as error:
            log.error("answer %s ended badly: %s", response_id, error.message)
        finally:
            if self._running.get(response_id, (None,))[0] is turn:
                del self._running[response_id]
            self._parts.prefixes.release(turn)
            self._parts.compactor.release(turn)
            if self._short:
                self._wake.set()

    async def _keep_leases(self) -> None:
        lease = self._limits.lease
        while True:
            await asyncio.sleep(lease / 3)
            held = self._turns()  # by the time of the reply a newer claim of the same answer may run here
            try:
                for lost in await self._parts.turns.renew(self._engine_id, list(held), lease=lease):
                    held[lost].lose()
                if await self._parts.turns.reap():
                    self._wake.set()
            except Unavailable as error:
                log.warning("cannot renew leases (%s)", error.message)

    async def _keep_reporting(self) -> None:
        await self._listens.wait()  # who is reported is asked, and must hear it
        while True:
            health = await self._parts.engine.health()
            self._look_at(health)
            parts, running = self._parts, len(self._running)
            report = reports.of(self._report, parts.engine.card, health, parts.tally.work, running=running)
            load = self._parts.engine.expert_load()
            try:
                self._engines = await self._registry.put(report, ttl=REPORT_TTL)
                if load is not None:
                    await self._registry.put_experts(self._engine_id, reports.published(load), ttl=REPORT_TTL)
            except Unavailable as error:
                log.warning("cannot report to the store (%s)", error.message)
            await asyncio.sleep(REPORT_INTERVAL)

    def _look_at(self, health: Health) -> None:
        """Tell of a silent engine and of a leak. Raises EngineLost: no turn may be there that would notice."""
        if health.lost:
            raise EngineLost(health.detail)
        if not health.ok and not self._draining:
            log.warning("the scheduler does not answer: %s", health.detail)
        if health.kv_leaked != self._leaked:
            log.error(
                "%d of %d tokens of the KV pool belong to nobody; a restart of the engine frees them",
                health.kv_leaked,
                health.kv_tokens,
            )
            self._leaked = health.kv_leaked
