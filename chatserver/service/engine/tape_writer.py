"""Group commit: all that the running answers wrote since the last commit, in one round trip.

    turn ─┐                      ┌ append pipeline ┐   ┌ one bundle per web process ┐
    turn ─┼─ write ─> pending ──>│   (durable)     │──>│        (announced)         │
    turn ─┘    merged while      └─────────────────┘   └────────────────────────────┘
               a commit is away

Under light load a commit carries one step; under heavy load, or with a slow store, batches grow by
themselves, because adjacent deltas of one tape are merged while they wait. What nobody waits for goes with the next
commit, or after COMPANY.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from chatserver.domain.tape import Record, merge
from chatserver.ports.tapes import Append, Tapes
from chatserver.service.engine.insistence import GIVE_UP, insist

PENDING_BOUND = 4096
"""Tokens that one tape may have waiting before its turn must wait."""

COMPANY = 0.02
"""Seconds that records which are not urgent wait for others to be committed with."""


@dataclass(slots=True)
class _Tape:
    """What waits for one tape, and who is told of the result."""

    claim: int
    on_stop: Callable[[], None]
    on_lost: Callable[[], None]
    records: list[Record] = field(default_factory=list)
    waiting: int = 0
    settled: asyncio.Event = field(default_factory=asyncio.Event)


class TapeWriter:
    """Collects records of many turns and commits them in groups. Run `run()` as a task."""

    def __init__(self, tapes: Tapes, *, give_up: float = GIVE_UP) -> None:
        self._tapes = tapes
        self._give_up = give_up
        self._open: dict[str, _Tape] = {}
        self._pending: dict[str, _Tape] = {}
        """Those of the open tapes that have records waiting."""
        self._wake = asyncio.Event()
        self._later: asyncio.TimerHandle | None = None

    def open(
        self, response_id: str, claim: int, *, on_stop: Callable[[], None], on_lost: Callable[[], None]
    ) -> None:
        """Begin writing a tape. `on_stop`: a user asked for a stop; `on_lost`: the claim is no longer ours."""
        self._open[response_id] = tape = _Tape(claim, on_stop, on_lost)
        self._pending.pop(response_id, None)
        tape.settled.set()

    def close(self, response_id: str) -> None:
        """Forget a tape; what still waits for it is dropped."""
        tape = self._open.pop(response_id, None)
        if tape is not None:
            self._pending.pop(response_id, None)
            tape.settled.set()

    def write(self, response_id: str, *records: Record, urgent: bool = True) -> None:
        """Queue records for the next commit, which comes at once if they are `urgent`. Never blocks; see `flow`."""
        tape = self._open[response_id]
        for record in records:
            merged = merge(tape.records[-1], record) if tape.records else None
            if merged is None:
                tape.records.append(record)
            else:
                tape.records[-1] = merged
            tape.waiting += record.body.width
        tape.settled.clear()
        self._pending[response_id] = tape
        if urgent:
            self._wake.set()
        elif self._later is None:
            self._later = asyncio.get_running_loop().call_later(COMPANY, self._wake.set)

    async def flow(self, response_id: str) -> None:
        """Wait while the tape has more than PENDING_BOUND tokens waiting."""
        tape = self._open.get(response_id)
        if tape is not None and tape.waiting > PENDING_BOUND:
            await tape.settled.wait()

    async def flush(self, response_id: str) -> None:
        """Wait until everything written so far is durable, or the tape is closed."""
        tape = self._open.get(response_id)
        if tape is not None:
            if tape.records:
                self._wake.set()
            await tape.settled.wait()

    async def run(self) -> None:
        """Commit until cancelled. Raises Unavailable when the store stayed away for `give_up` seconds."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch = self._take()
            if batch:
                await self._commit(batch)

    def _take(self) -> list[Append]:
        batch = []
        for response_id, tape in self._pending.items():
            batch.append(Append(response_id, tape.claim, tuple(tape.records)))
            tape.records = []
            tape.waiting = 0
        self._pending.clear()
        if self._later is not None:
            self._later.cancel()
            self._later = None
        return batch

    async def _commit(self, batch: list[Append]) -> None:
        # Sending a batch again is safe: the store drops records it already has.
        results = await insist(
            lambda: self._tapes.commit(batch), waits=f"a commit of {len(batch)} tapes", give_up=self._give_up
        )
        for append, result in zip(batch, results, strict=True):
            tape = self._open.get(append.response_id)
            if tape is None or tape.claim != append.claim:
                continue
            if not result.ok:
                tape.on_lost()
            elif result.stop_asked:
                tape.on_stop()
            if not tape.records:
                tape.settled.set()
