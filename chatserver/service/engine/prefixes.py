"""Idle work: prefixes that are put into the KV cache before the turn that needs them.

    a turn ends, its cut moves ─┐                    ┌ chunk ─ chunk ─ chunk ─> in the cache
    a user opens or types ──────┴─> one place each ──┤    while nothing runs
                                    per conversation └ a job is claimed: aborted, goes on later

Real work goes first. One prefill at a time, in chunks of one scheduler step each that take about CHUNK_SECONDS. A
claimed job aborts it, and until its first token none begins. What is needed first is made first (see `rhythm`).
While answers are only being written, what a turn is sure to need is made in the smallest chunks, SHARE of the time, or
as much of it as gets everything done in time: nobody is kept waiting, and on an engine that is never quiet a cut would
otherwise cost all of them one long step. One exception: a turn whose prompt begins with
the very prefix that is being made waits for it, because starting beside it would compute the same tokens twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from secrets import token_hex

from chatserver.service.engine.chunks import Chunks
from chatserver.service.engine.published import Known, Published
from chatserver.service.engine.wanted import Prefix, Wanted
from engine.contract import REQUEST_ID_LENGTH, Engine, EngineBusy, EngineError, EngineLost

log = logging.getLogger(__name__)

CHUNK_TIMEOUT = 60.0
"""Seconds after which a prefill that the engine does not answer is given up."""
SHARE = 0.25
"""Of the time that idle work takes while answers are written, if that is enough for all to be in time."""
SETTLE = 0.02
"""Seconds without a turn before idle work goes on: turns that follow each other at once leave no gap for it."""


@dataclass(slots=True)
class IdleCounts:
    """Since the start. `computed`: tokens prefilled in idle time; `aborted`: tokens of chunks that were dropped."""

    computed: int = 0
    aborted: int = 0
    finished: int = 0
    waited_for: int = 0


@dataclass(slots=True)
class _Running:
    """The prefill that is under way. `wanted_now`: a turn waits for it, so nothing pauses it. `stale`: no use later.

    `finished`: all of it is there; `failed`: it is not tried again.
    """

    prefix: Prefix
    done: asyncio.Event
    request_id: str = ""
    wanted_now: bool = False
    paused: bool = False
    stale: bool = False
    finished: bool = False
    failed: bool = False


class Prefixes:
    """What is in the KV cache, and what is put there in idle time. Run `run()` as a task."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._published = Published(engine.card.kv_tokens, engine.card.page)
        self._wanted = Wanted(engine.card.kv_tokens // (2 * engine.card.context))
        self._running: _Running | None = None
        self._stir = asyncio.Event()
        self._chunks = Chunks(engine.card.page)
        self._pace = SHARE
        self._aborts: set[asyncio.Task[None]] = set()
        self.counts = IdleCounts()
        """What the idle work came to."""

    # Turns

    def hold(self, turn: object, conversation: str | None) -> None:
        """A turn begins: idle work stops, unless it is for that conversation (then see `wait_for`)."""
        self._wanted.starts(turn, conversation, time.monotonic())
        running = self._running
        if running is not None and running.prefix.conversation != conversation:
            self._pause(running)

    def answering(self, turn: object) -> None:
        """A turn that holds has its first token: nobody waits for it any more. May be called again."""
        if self._wanted.answers(turn):
            self._stir.set()

    def release(self, turn: object) -> None:
        """A turn has ended."""
        self._wanted.ends(turn, time.monotonic())
        self._stir.set()

    async def wait_for(
        self, conversation: str | None, salt: str, ids: Sequence[int], over: asyncio.Event
    ) -> None:
        """Wait while the prefix that `ids` begin with is being made, unless `over` comes first.

        All other idle work stops; what was meant for this conversation's turn and is not what it sends is dropped.
        """
        running = self._running
        if running is None:
            return
        mine = running.prefix
        if mine.salt != salt or tuple(ids[: len(mine.ids)]) != mine.ids:
            running.stale = mine.conversation == conversation
            self._pause(running)
            return
        running.wanted_now = True
        self.counts.waited_for += 1
        await _first(running.done, over)
        running.wanted_now = False
        if not running.done.is_set():
            self._pause(running)

    def computed(
        self,
        salt: str,
        conversation: str | None,
        ids: Sequence[int],
        cut: str | None = None,
        leaf: str | None = None,
    ) -> None:
        """A turn put `ids` into the cache."""
        self._published.add(salt, conversation or "", ids, cut, leaf)

    def warm(self, salt: str, conversation: str, ids: Sequence[int]) -> int:
        """Return how many of the first tokens of `ids` should be in the cache."""
        return self._published.warm(salt, conversation, ids)

    # Ends

    async def leave(
        self, salt: str, conversation: str, path: Collection[str], cuts: Collection[str | None]
    ) -> None:
        """A turn behind the items of `path` has ended: free what cuts of this branch hold that are not in `cuts`."""

        def left(known: Known) -> bool:
            return known.cut not in cuts and known.leaf in path

        if any(map(left, self._published.of(salt, conversation))):
            try:
                freed = await self._free_of(salt, conversation, left)
                log.debug("%s moved its cut: %d tokens of KV freed", conversation, freed)
            except EngineError as error:  # it goes by its age instead; the turn has ended well
                log.info("what a cut left behind was not freed: %s", error)

    def known(self, salt: str, conversation: str) -> list[Known]:
        """Return what is remembered of a conversation, oldest first."""
        return self._published.of(salt, conversation)

    async def free(
        self,
        salt: str,
        conversation: str,
        gone: Callable[[Known], bool] = lambda known: True,
        kept: Sequence[int] = (),
    ) -> int:
        """Free the KV of a conversation's sequences that are `gone`, but for what `kept` and others begin with.

        Idle work for the conversation is dropped. Returns how many tokens were freed. Raises EngineError.
        """
        self._wanted.drop(conversation)
        running = self._running
        if running is not None and running.prefix.conversation == conversation:
            running.stale = True
            self._pause(running)
            await running.done.wait()
        return await self._free_of(salt, conversation, gone, kept)

    # Idle work

    def want(self, prefix: Prefix) -> None:
        """Have a prefix made when there is nothing else to do; it takes the place of the conversation's earlier one."""
        if left := self._left(prefix):
            self._wanted.put(prefix, left, time.monotonic())
            self._stir.set()
        elif prefix.then:
            self.want(prefix.then)

    @property
    def idle(self) -> bool:
        """Whether nothing is being made or waits to be made."""
        return self._running is None and not self._wanted

    async def run(self) -> None:
        """Make what is wanted until cancelled. Raises EngineLost."""
        while True:
            self._stir.clear()
            if self._wanted.next() is None:
                await self._stir.wait()
                continue
            self._pace = self._wanted.share(time.monotonic(), self._chunks.speed, SHARE)
            await asyncio.sleep(self._chunks.took * (1 / self._pace - 1) if self._wanted.beside else SETTLE)
            if (prefix := self._wanted.next()) is not None:
                self._wanted.drop(prefix.conversation)
                await self._make(prefix)

    # Private

    async def _free_of(
        self, salt: str, conversation: str, gone: Callable[[Known], bool], kept: Sequence[int] = ()
    ) -> int:
        freed = 0
        for ids, keep in list(self._published.withdraw(salt, conversation, gone, [kept])):
            freed += await self._engine.release(ids, keep, salt)
            if kept and keep:
                self._published.add(salt, conversation, ids[:keep])
        return freed

    def _whole(self, length: int) -> int:
        return length - length % self._engine.card.page

    def _left(self, prefix: Prefix) -> int:
        """Return how many tokens of a prefix are missing, in whole pages."""
        there = self._published.warm(prefix.salt, prefix.conversation, prefix.ids)
        return max(0, self._whole(len(prefix.ids)) - there)

    async def _make(self, prefix: Prefix) -> None:
        self._running = running = _Running(prefix, asyncio.Event())
        try:
            await self._prefill(running)
        except (EngineBusy, TimeoutError) as error:
            running.failed = True
            log.info("a prefix was not made: %s", error or "the engine took too long")
        except EngineLost:
            raise
        except EngineError as error:
            running.failed = True
            log.warning("the engine refused to make a prefix: %s", error)
        finally:
            self._running = None
            running.done.set()
        if running.finished and prefix.then:
            self.want(prefix.then)
        elif not (running.finished or running.failed or running.stale):
            self._wanted.put_back(prefix, self._left(prefix), time.monotonic())

    async def _prefill(self, running: _Running) -> None:
        """Make it chunk by chunk, from what is there already on; return early when paused, or to rest."""
        prefix = running.prefix
        at = self._published.warm(prefix.salt, prefix.conversation, prefix.ids)
        whole = self._whole(len(prefix.ids))
        while at < whole:
            careful = self._wanted.beside and self._pace < 2 * SHARE
            end = self._chunks.end(at, len(prefix.ids), careful=careful)
            running.request_id = token_hex(REQUEST_ID_LENGTH // 2)
            started = time.monotonic()
            async with asyncio.timeout(CHUNK_TIMEOUT):
                cached = await self._engine.prefill(running.request_id, prefix.ids[:end], prefix.salt)
            if running.paused:
                self.counts.aborted += end - at
                return
            computed = max(0, end - cached)
            self.counts.computed += computed
            self._published.add(prefix.salt, prefix.conversation, prefix.ids[:end], prefix.cut, prefix.leaf)
            self._chunks.note(computed, time.monotonic() - started)
            at = end
            if at < whole and self._wanted.beside and not running.wanted_now:
                return
        running.finished = True
        self.counts.finished += 1

    def _pause(self, running: _Running) -> None:
        if running.wanted_now or running.paused:
            return
        running.paused = True
        task = asyncio.ensure_future(self._engine.abort(running.request_id))
        self._aborts.add(task)
        task.add_done_callback(self._aborts.discard)


async def _first(*events: asyncio.Event) -> None:
    """Return when one of the events is set."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
