"""The life of jobs against a model: any order of begin, claim, append, finish, stop, release, renew."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from chatserver.adapters.valkey import ValkeyStore
from chatserver.adapters.valkey.client import Client, connect
from chatserver.adapters.valkey.tapes import ValkeyTapes
from chatserver.domain.ids import SHARDS
from chatserver.domain.response import Response, Status
from chatserver.domain.tape import Cursor, Delta
from chatserver.errors import Conflict, Overloaded
from chatserver.ports.turns import NewTurn
from tests.chatserver.adapters.things import NOW, SHARD, TENANT, closing, delta, outcome_of, turn
from tests.chatserver.adapters.things import conversation as new_conversation

T = TypeVar("T")
BOUND = 4
ENGINES = ("eng-a", "eng-b")


@dataclass
class Job:
    """What the model knows of one response."""

    new: NewTurn
    status: Status = Status.QUEUED
    claim: int = 0
    owner: str | None = None
    stop_asked: bool = False
    last: int = 1
    text: str = ""
    held: list[Response] = field(default_factory=list)
    """Every claim that was ever given out, old ones included: their holders go on trying."""


class Jobs(RuleBasedStateMachine):
    """One conversation with branches, two engines that may be slow, late or gone."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.jobs: list[Job] = []
        self.conversation = new_conversation()
        self.head: str | None = None
        self.client: Client = self.run(self._open())
        self.store = ValkeyStore(self.client)
        self.writers = {engine: ValkeyTapes(self.client) for engine in ENGINES}
        self.run(self.store.conversations.create(self.conversation))

    async def _open(self) -> Client:
        client = await connect(self.url)
        await client.pipeline([(shard, ("FLUSHALL",)) for shard in range(SHARDS)])
        return client

    def run(self, step: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(step)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.runner.close()

    @property
    def waiting(self) -> list[Job]:
        """Those that wait, the oldest first, whether they are new or were put back."""
        live = (Status.QUEUED, Status.IN_PROGRESS)
        return [job for job in self.jobs if job.status in live and job.owner is None]

    @property
    def running(self) -> bool:
        return any(not job.status.ended for job in self.jobs)

    @rule(exclusive=st.booleans(), stale=st.booleans())
    def begin(self, exclusive: bool, stale: bool) -> None:
        parent = None if stale else self.head
        new = turn(self.conversation.id, parent=parent, exclusive=exclusive)
        refusal: type[Exception] | None = None
        if exclusive and (self.running or parent != self.head):
            refusal = Conflict
        elif len(self.waiting) >= BOUND:
            refusal = Overloaded
        if refusal:
            with pytest.raises(refusal):
                self.run(self.store.turns.begin(new, queue_bound=BOUND))
            return
        for _ in range(2):  # its first answer may have been lost
            assert self.run(self.store.turns.begin(new, queue_bound=BOUND)).fresh
        self.jobs.append(Job(new))
        self.head = new.items[-1].id

    @rule(engine=st.sampled_from(ENGINES), anywhere=st.booleans())
    def claim(self, engine: str, anywhere: bool) -> None:
        shard = None if anywhere else SHARD
        found = self.run(self.store.turns.claim(engine, lease=60, shard=shard))
        if not self.waiting:
            assert found == []
            return
        job = self.waiting[0]
        (claimed,) = found
        assert claimed.id == job.new.response.id
        job.claim += 1
        job.owner, job.status = engine, Status.IN_PROGRESS
        assert (claimed.claim, claimed.owner, claimed.stop_asked) == (job.claim, engine, job.stop_asked)
        job.held.append(claimed)

    @precondition(lambda self: any(job.held for job in self.jobs))
    @rule(
        data=st.data(),
        pieces=st.lists(st.text("abc", max_size=2), min_size=1, max_size=3),
        again=st.booleans(),
    )
    def append(self, data: st.DataObject, pieces: list[str], again: bool) -> None:
        job = data.draw(st.sampled_from([job for job in self.jobs if job.held]))
        held = data.draw(st.sampled_from(job.held))
        batch = [delta(held, job.last + 1, *pieces)]
        allowed = held.claim == job.claim and not job.status.ended and job.owner is not None
        assert held.owner is not None
        for times in (2, 1) if again else (1,):
            results = self.run(self.writers[held.owner].commit(batch * times))
            assert {(r.ok, r.stop_asked) for r in results} == {(allowed, job.stop_asked)}
        if allowed:
            job.last += len(pieces)
            job.text += "".join(pieces)

    @precondition(lambda self: any(job.held for job in self.jobs))
    @rule(data=st.data(), again=st.booleans())
    def finish(self, data: st.DataObject, again: bool) -> None:
        job = data.draw(st.sampled_from([job for job in self.jobs if job.held]))
        held = data.draw(st.sampled_from(job.held))
        assume(not job.status.ended)
        outcome = outcome_of(held, job.text)
        records = closing(outcome, job.last + 1)
        allowed = held.claim == job.claim and job.owner is not None
        for _ in range(2 if again else 1):
            assert self.run(self.store.turns.finish(held, outcome, records, {})) == allowed
        if allowed:
            job.status, job.owner, job.last = outcome.status, None, records[-1].last
            if outcome.item is not None and self.head == job.new.items[-1].id:
                self.head = outcome.item.id

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.jobs))
        self.run(self.store.turns.stop(TENANT, job.new.response.id, NOW))
        if job.status.ended:
            return
        job.stop_asked = True
        if job.claim == 0:
            job.status, job.last = Status.CANCELLED, job.last + 1

    @rule(engine=st.sampled_from(ENGINES))
    def release(self, engine: str) -> None:
        mine = [job for job in self.jobs if job.owner == engine]
        assert self.run(self.store.turns.release(engine)) == len(mine)
        for job in mine:
            job.owner = None
            job.last += 1

    @precondition(lambda self: any(job.owner for job in self.jobs))
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """An engine is gone, the other takes over; what the first one held it may still try to write."""
        engine = data.draw(st.sampled_from([job.owner for job in self.jobs if job.owner]))
        other = next(name for name in ENGINES if name != engine)
        self.release(engine)
        while self.waiting:
            self.claim(other, anywhere=False)

    @rule(engine=st.sampled_from(ENGINES))
    def renew(self, engine: str) -> None:
        ids = [job.new.response.id for job in self.jobs]
        lost = self.run(self.store.turns.renew(engine, ids, lease=60))
        assert lost == [job.new.response.id for job in self.jobs if job.owner != engine]

    @rule()
    def reap(self) -> None:
        assert self.run(self.store.turns.reap()) == 0

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.jobs))
        if not job.status.ended:
            with pytest.raises(Conflict):
                self.run(self.store.turns.delete(TENANT, job.new.response.id))
            return
        self.run(self.store.turns.delete(TENANT, job.new.response.id))
        self.jobs.remove(job)

    @invariant()
    def agrees(self) -> None:
        self.run(self._agrees())

    async def _agrees(self) -> None:
        assert await self.store.turns.waiting() == len(self.waiting)
        found = await self.store.conversations.get(TENANT, self.conversation.id)
        assert found.head == self.head
        assert (found.active is not None) == self.running
        for job in self.jobs:
            response = await self.store.turns.get(TENANT, job.new.response.id)
            expected = replace(
                job.new.response,
                status=job.status,
                claim=job.claim,
                owner=job.owner,
                stop_asked=job.stop_asked,
            )
            assert replace(response, outcome=None) == expected
            assert (response.outcome is not None) == job.status.ended
            await self._tape_agrees(job)

    async def _tape_agrees(self, job: Job) -> None:
        """Every token once, no gap, the end where it belongs."""
        cursor, text = Cursor(), ""
        for record in await self.store.tapes.read(job.new.response.id, -1):
            taken = cursor.take(record)
            assert taken is not None
            text += taken.body.text if isinstance(taken.body, Delta) else ""
        assert (cursor.after, cursor.ended, text) == (job.last, job.status.ended, job.text)


def test_jobs_live_as_the_model_says(server_url: str) -> None:
    """Hypothesis plays users and engines; the store and the model never disagree."""
    machine = type("JobsHere", (Jobs,), {"url": server_url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=100,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
