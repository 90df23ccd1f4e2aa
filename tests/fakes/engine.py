"""An engine that writes tapes without computing anything."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace

from chatserver.domain.item import Item, ItemStatus, Role
from chatserver.domain.ledger import Ledger
from chatserver.domain.response import Failure, Finish, Outcome, Response, Status, Timing, Usage
from chatserver.domain.tape import (
    Body,
    Delta,
    Ended,
    ItemClosed,
    ItemOpened,
    Record,
    Started,
)
from chatserver.ports.registry import EngineReport, EngineState, ServedModel
from chatserver.ports.tapes import Append
from tests.fakes.store import MemoryStore

MODEL = ServedModel("tiny", ("deepseek-chat",), 4096, created=1)


class FakeEngine:
    """Plays an engine on the ports: takes jobs and writes tapes.

    The answer is `answer`, a piece a token, `step` tokens a commit, `pause` seconds between commits.
    A prompt that contains REFUSE does not fit, FAIL is lost after 3 tokens. Clear `go` to keep jobs
    queued; clear `write` to hold answers after their first commit.
    """

    def __init__(self, store) -> None:
        self.store = store
        self.answer = [f"w{i} " for i in range(20)]
        self.step = 3
        self.pause = 0.0
        self.go = asyncio.Event()
        self.go.set()
        self.write = asyncio.Event()
        self.write.set()
        self.started: list[str] = []
        self._tasks: set[asyncio.Task] = set()
        self._resting = False

    async def rest(self) -> None:
        """Take no more jobs until `go` is set; return once none is being looked for."""
        self.go.clear()
        while not self._resting:
            await asyncio.sleep(0.001)

    async def run(self) -> None:
        report = EngineReport("eng_1", EngineState.READY, "ready", time.time(), MODEL)
        await self.store.registry.put(report, ttl=3600)
        while True:
            self._resting = not self.go.is_set()
            await self.go.wait()
            self._resting = False
            response = await self._claim()
            if response is None:
                await asyncio.sleep(0.005)
                continue
            self.started.append(response.id)
            task = asyncio.create_task(self.play(response))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _claim(self) -> Response | None:
        if not isinstance(self.store, MemoryStore):
            return next(iter(await self.store.turns.claim("eng_1", lease=60)), None)
        if not self.store.waiting:
            return None
        response_id = self.store.waiting.pop(0)
        found = self.store.all_responses[response_id]
        found = replace(found, status=Status.IN_PROGRESS, claim=found.claim + 1, owner="eng_1")
        self.store.all_responses[response_id] = found
        return found

    async def play(self, response: Response, *, last: int = 1) -> None:
        prompt = await self._prompt(response)
        writer = _Writer(self.store, response, last)
        if "REFUSE" in prompt:
            failure = Failure("context_length_exceeded", "too long", "input", 400, "invalid_request_error")
            outcome = Outcome(Status.FAILED, Finish.ERROR, Usage(), failure=failure)
            await writer.finish(outcome, discard_inputs=True)
            return
        await writer.commit(Started(len(prompt), response.claim), ItemOpened(response.item_id))
        carried = await self._carried(response)
        bound = carried + (response.params.max_output_tokens or len(self.answer))
        pieces = self.answer[:bound]
        stopped, written = False, 0
        while written < len(pieces) and not stopped:
            some = pieces[written : written + self.step]
            stopped = await writer.commit(Delta(tuple(some), tuple(range(written, written + len(some)))))
            written += len(some)
            await self.write.wait()
            if "FAIL" in prompt:
                failure = Failure("engine_failed", "the engine was lost")
                await writer.end(self._outcome(response, prompt, pieces[:written], Status.FAILED, failure))
                return
            if self.pause:
                await asyncio.sleep(self.pause)
        length = bound < len(self.answer)
        status = Status.CANCELLED if stopped else Status.INCOMPLETE if length else Status.COMPLETED
        await writer.end(self._outcome(response, prompt, pieces[:written], status))

    def _outcome(self, response, prompt, pieces, status, failure=None) -> Outcome:
        item = Item(
            response.item_id,
            response.inputs[-1] if response.inputs else response.parent,
            Role.ASSISTANT,
            "".join(pieces),
            ItemStatus.COMPLETED if status is Status.COMPLETED else ItemStatus.INCOMPLETE,
            response.id,
        )
        finish = {
            Status.COMPLETED: Finish.STOP,
            Status.INCOMPLETE: Finish.LENGTH,
            Status.CANCELLED: Finish.STOPPED,
            Status.FAILED: Finish.ERROR,
        }[status]
        usage = Usage(prompt=len(prompt), cached=len(prompt) // 2, output=len(pieces))
        ledger = Ledger(4096, len(prompt), 100, "disabled")
        return Outcome(status, finish, usage, item, Timing(1, 2, 3, 4), ledger, failure, completed_at=1)

    async def _carried(self, response: Response) -> int:
        """How many pieces of the answer an earlier response wrote."""
        if response.continues is None or response.conversation is None:
            return 0
        branch = await self.store.conversations.branch(
            response.tenant, response.conversation, response.continues, with_ids=False
        )
        return len(branch[-1].item.text.split())

    async def _prompt(self, response: Response) -> str:
        if response.conversation is None:
            return "".join(message.text for message in response.params.messages)
        leaf = response.inputs[-1] if response.inputs else response.parent
        branch = await self.store.conversations.branch(
            response.tenant, response.conversation, leaf, with_ids=False
        )
        return "".join(stored.item.text for stored in branch)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task


class _Writer:
    def __init__(self, store, response: Response, last: int) -> None:
        self.store, self.response, self.last = store, response, last

    def _records(self, bodies: tuple[Body, ...]) -> tuple[Record, ...]:
        records = []
        for body in bodies:
            self.last += body.width
            records.append(Record(self.last, body))
        return tuple(records)

    async def commit(self, *bodies: Body) -> bool:
        append = Append(self.response.id, self.response.claim, self._records(bodies))
        (appended,) = await self.store.tapes.commit([append])
        return appended.stop_asked

    async def end(self, outcome: Outcome) -> None:
        item = outcome.item
        await self.finish(outcome, ItemClosed(item.id, item.text, item.status is ItemStatus.COMPLETED))

    async def finish(self, outcome: Outcome, *before: Body, discard_inputs: bool = False) -> None:
        records = self._records((*before, Ended(outcome)))
        await self.store.turns.finish(self.response, outcome, records, {}, discard_inputs=discard_inputs)
