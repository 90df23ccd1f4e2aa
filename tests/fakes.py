"""The ports in memory, and an engine that writes tapes: small, but with the real semantics."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace

from chatserver.domain.item import Conversation, Item, ItemStatus, Role, StoredItem
from chatserver.domain.response import Failure, Finish, Ledger, Outcome, Response, Status, Timing, Usage
from chatserver.domain.tape import (
    Accepted,
    Body,
    Delta,
    Ended,
    ItemClosed,
    ItemOpened,
    Queued,
    Record,
    Started,
)
from chatserver.errors import Conflict, NotFound, Overloaded, Unavailable
from chatserver.ports.accounts import State, Verdict
from chatserver.ports.registry import EngineReport, EngineState, ExpertLoad, ServedModel
from chatserver.ports.tapes import Append, Appended
from chatserver.ports.turns import Begun

MODEL = ServedModel("tiny", ("deepseek-chat",), 4096, created=1)


class MemoryStore:
    """All ports on shared dictionaries. `down`: every call raises Unavailable. `lose`: announcements are lost."""

    def __init__(self) -> None:
        self.all_conversations: dict[str, Conversation] = {}
        self.all_items: dict[str, dict[str, Item]] = defaultdict(dict)
        self.all_responses: dict[str, Response] = {}
        self.all_tapes: dict[str, list[Record]] = {}
        self.watchers: dict[str, set[str]] = defaultdict(set)
        self.subscribers: dict[str, set[asyncio.Queue]] = defaultdict(set)
        self.waiting: list[str] = []
        self.keys: dict[str, tuple[str, str]] = {}
        self.reports: dict[str, EngineReport] = {}
        self.loads: dict[str, ExpertLoad] = {}
        self.known_models: list[ServedModel] = []
        self.arrived = asyncio.Event()
        self.down = False
        self.lose = False
        self.conversations = MemoryConversations(self)
        self.turns = MemoryTurns(self)
        self.tapes = MemoryTapes(self)
        self.signals = MemorySignals(self)
        self.registry = MemoryRegistry(self)
        self.caches = MemoryCaches(self)
        self.access = MemoryAccess(self)
        self.accounts = MemoryAccounts(self)

    def check(self) -> None:
        if self.down:
            raise Unavailable("the store does not answer", retry_after=1.0)

    def announce(self, response_id: str, records: list[Record]) -> None:
        if not self.lose:
            for web_id in self.watchers.get(response_id, ()):
                for queue in self.subscribers[web_id]:
                    queue.put_nowait([(response_id, records)])

    def add(self, response_id: str, records) -> None:
        tape = self.all_tapes[response_id]
        fresh = [record for record in records if not tape or record.last > tape[-1].last]
        tape += fresh
        self.announce(response_id, fresh)

    def changed(self, conversation_id: str) -> None:
        for queue in self.subscribers["changes"]:
            queue.put_nowait(conversation_id)

    def cut_subscriptions(self) -> None:
        for queues in self.subscribers.values():
            for queue in queues:
                queue.put_nowait(Unavailable("the connection was lost"))

    async def close(self) -> None:
        pass


class MemoryConversations:
    def __init__(self, store: MemoryStore) -> None:
        self.s = store

    async def create(self, conversation, items=(), encoded=None):
        self.s.check()
        self.s.all_conversations[conversation.id] = conversation
        self.s.all_items[conversation.id] = {item.id: item for item in items}

    async def get(self, tenant, conversation_id):
        self.s.check()
        found = self.s.all_conversations.get(conversation_id)
        if found is None or found.tenant != tenant:
            raise NotFound(f"no conversation {conversation_id}")
        return found

    async def update(self, tenant, conversation_id, *, title=None, metadata=None, now):
        found = await self.get(tenant, conversation_id)
        changes = {"title": title, "metadata": metadata}
        found = replace(found, updated_at=now, **{k: v for k, v in changes.items() if v is not None})
        self.s.all_conversations[conversation_id] = found
        self.s.changed(conversation_id)
        return found

    async def delete(self, tenant, conversation_id):
        if (await self.get(tenant, conversation_id)).active:
            raise Conflict("a turn runs")
        del self.s.all_conversations[conversation_id], self.s.all_items[conversation_id]
        self.s.changed(conversation_id)
        for response in list(self.s.all_responses.values()):
            if response.conversation == conversation_id:
                del self.s.all_responses[response.id], self.s.all_tapes[response.id]

    async def list(self, tenant, *, limit, after=None, newest_first=True):
        self.s.check()
        mine = [c for c in self.s.all_conversations.values() if c.tenant == tenant]
        mine.sort(key=lambda c: (c.updated_at, c.id), reverse=newest_first)
        start = 0 if after is None else [c.id for c in mine].index(after) + 1
        return mine[start : start + limit]

    async def append(self, tenant, conversation_id, items, now):
        found = await self.get(tenant, conversation_id)
        if found.active:
            raise Conflict("a turn runs")
        self.s.all_items[conversation_id].update({item.id: item for item in items})
        found = replace(found, head=items[-1].id if items else found.head, updated_at=now)
        self.s.all_conversations[conversation_id] = found
        self.s.changed(conversation_id)
        return found

    async def branch(self, tenant, conversation_id, leaf, *, with_ids):
        await self.get(tenant, conversation_id)
        items, found = self.s.all_items[conversation_id], []
        while leaf is not None:
            if leaf not in items:
                raise NotFound(f"no item {leaf}")
            found.append(StoredItem(items[leaf]))
            leaf = items[leaf].parent
        return found[::-1]

    async def path(self, tenant, conversation_id, leaf):
        branch = await self.branch(tenant, conversation_id, leaf, with_ids=False)
        return [stored.item.id for stored in branch]

    async def all_items(self, tenant, conversation_id, *, limit, after=None):
        await self.get(tenant, conversation_id)
        items = self.s.all_items[conversation_id]

        def depth(item):
            return 1 if item.parent is None else 1 + depth(items[item.parent])

        ordered = sorted(items.values(), key=lambda item: (depth(item), item.id))
        start = 0 if after is None else [item.id for item in ordered].index(after) + 1
        return ordered[start : start + limit]

    async def links(self, tenant, conversation_id, *, unless=0):
        await self.get(tenant, conversation_id)
        items = self.s.all_items[conversation_id]
        return {} if len(items) == unless else {item.id: item.parent for item in items.values()}

    async def some(self, tenant, conversation_id, item_ids):
        await self.get(tenant, conversation_id)
        items = self.s.all_items[conversation_id]
        return [StoredItem(items[name]) if name in items else None for name in item_ids]

    async def place(self, tenant, conversation_id, item, ids, template_hash, *, payer=None):
        await self.get(tenant, conversation_id)
        items = self.s.all_items[conversation_id]
        if item.parent not in items:
            raise NotFound("no such item")
        items.setdefault(item.id, item)

    async def remove(self, tenant, conversation_id, item_id, now):
        found = await self.get(tenant, conversation_id)
        items = self.s.all_items[conversation_id]
        if found.active:
            raise Conflict("a turn runs")
        if item_id not in items:
            raise NotFound(f"no item {item_id}")
        going, above = [item_id], items[item_id].parent
        while going:
            gone = going.pop()
            del items[gone]
            going += [item.id for item in items.values() if item.parent == gone]
            if gone == found.head:
                found = replace(found, head=above)
        self.s.all_conversations[conversation_id] = found
        self.s.changed(conversation_id)
        return found


class MemoryTurns:
    def __init__(self, store: MemoryStore) -> None:
        self.s = store

    async def begin(self, turn, *, queue_bound):
        self.s.check()
        response = turn.response
        key = f"{response.tenant}\n{turn.idempotency_key}"
        if turn.idempotency_key is not None and key in self.s.keys:
            known, fingerprint = self.s.keys[key]
            if fingerprint != turn.fingerprint:
                raise Conflict("the key was used with another request", code="idempotency_key_reused")
            return Begun(known, fresh=False)
        if len(self.s.waiting) + len(turn.siblings) >= queue_bound:
            raise Overloaded("too many wait", retry_after=1.0)
        if response.conversation is not None:
            await self._into_conversation(turn)
        if turn.watcher:
            self.s.watchers[response.id].add(turn.watcher)
        for one in (response, *turn.siblings):
            self.s.all_responses[one.id] = one
            self.s.all_tapes[one.id] = []
            self.s.add(one.id, [Record(0, Accepted()), Record(1, Queued())])
            self.s.waiting.append(one.id)
        if turn.idempotency_key is not None:
            self.s.keys[key] = response.id, turn.fingerprint
        self.s.arrived.set()
        return Begun(response.id, fresh=True)

    async def _into_conversation(self, turn) -> None:
        response = turn.response
        if turn.create:
            self.s.all_conversations[response.conversation] = Conversation(
                response.conversation, response.tenant, response.created_at
            )
        found = await self.s.conversations.get(response.tenant, response.conversation)
        if response.parent is not None and response.parent not in self.s.all_items[found.id]:
            raise NotFound("no such item", param="parent")
        if turn.exclusive and (found.active or found.head != response.parent):
            raise Conflict("a turn of this conversation is still running", code="conversation_busy")
        self.s.all_items[found.id].update({item.id: item for item in turn.items})
        self.s.all_conversations[found.id] = replace(
            found,
            head=turn.items[-1].id if turn.items else response.parent,
            active=response.id,
            title=found.title or turn.title,
            updated_at=response.created_at,
        )
        self.s.changed(found.id)

    async def known(self, turn):
        known, fingerprint = self.s.keys.get(
            f"{turn.response.tenant}\n{turn.idempotency_key}", (None, turn.fingerprint)
        )
        if fingerprint != turn.fingerprint:
            raise Conflict("the key was used with another request", code="idempotency_key_reused")
        return known

    async def get(self, tenant, response_id):
        self.s.check()
        found = self.s.all_responses.get(response_id)
        if found is None or found.tenant != tenant:
            raise NotFound(f"no response {response_id}")
        return found

    async def running(self, tenant, conversation_id):
        await self.s.conversations.get(tenant, conversation_id)
        mine = [r for r in self.s.all_responses.values() if r.conversation == conversation_id]
        return [response for response in mine if not response.status.ended]

    async def ahead(self, response_ids):
        self.s.check()
        waiting = {response_id: place for place, response_id in enumerate(self.s.waiting)}
        return [waiting.get(response_id) for response_id in response_ids]

    async def delete(self, tenant, response_id):
        if not (await self.get(tenant, response_id)).status.ended:
            raise Conflict("it runs")
        del self.s.all_responses[response_id], self.s.all_tapes[response_id]

    async def stop(self, tenant, response_id, now):
        found = await self.get(tenant, response_id)
        if found.status.ended:
            return found
        found = self.s.all_responses[response_id] = replace(found, stop_asked=True)
        if response_id in self.s.waiting:
            self.s.waiting.remove(response_id)
            outcome = Outcome(Status.CANCELLED, Finish.STOPPED, Usage(), completed_at=now)
            await self.finish(found, outcome, [Record(2, Ended(outcome))], {})
        return self.s.all_responses[response_id]

    async def finish(
        self, response, outcome, closing, ids, *, template_hash="", emitted=(), discard_inputs=False
    ):
        del ids, template_hash, emitted
        found = self.s.all_responses[response.id]
        self.s.all_responses[response.id] = replace(found, status=outcome.status, outcome=outcome)
        if found.conversation:
            items = self.s.all_items[found.conversation]
            head = self.s.all_conversations[found.conversation].head
            if outcome.item and not found.beside:
                head = outcome.item.id
            if outcome.item:
                items[outcome.item.id] = outcome.item
            if discard_inputs:
                for item_id in found.inputs:
                    del items[item_id]
                head = found.parent
            conversation = self.s.all_conversations[found.conversation]
            self.s.all_conversations[found.conversation] = replace(conversation, head=head, active=None)
            self.s.changed(found.conversation)
        self.s.add(response.id, closing)
        return True


class MemoryTapes:
    def __init__(self, store: MemoryStore) -> None:
        self.s = store

    async def commit(self, batch: list[Append]) -> list[Appended]:
        self.s.check()
        for append in batch:
            self.s.add(append.response_id, append.records)
        return [Appended(True, self.s.all_responses[append.response_id].stop_asked) for append in batch]

    async def watch(self, response_id, web_id):
        self.s.check()
        self.s.watchers[response_id].add(web_id)

    async def watch_on(self, response_ids, web_id):
        for response_id in response_ids:
            await self.watch(response_id, web_id)

    async def unwatch(self, response_id, web_id):
        self.s.check()
        self.s.watchers[response_id].discard(web_id)

    async def read(self, response_id, after, *, limit=1000):
        self.s.check()
        if response_id not in self.s.all_tapes:
            raise NotFound(f"no tape {response_id}")
        return [record for record in self.s.all_tapes[response_id] if record.last > after][:limit]


class MemorySignals:
    def __init__(self, store: MemoryStore) -> None:
        self.s = store

    async def changes(self):
        async for conversation_id in self.bundles("changes"):
            yield conversation_id

    async def bundles(self, web_id):
        self.s.check()
        queue: asyncio.Queue = asyncio.Queue()
        self.s.subscribers[web_id].add(queue)
        try:
            yield None
            while True:
                bundle = await queue.get()
                if isinstance(bundle, Exception):
                    raise bundle
                yield bundle
        finally:
            self.s.subscribers[web_id].discard(queue)


class MemoryCaches:
    """`heard`: what engines were told; `reports`: what they answer; `tokens`: what each freed."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.heard: list = []
        self.reports: list = []
        self.tokens: list[int] = []
        self.counted: list = []

    async def warm(self, command):
        self._store.check()
        self.heard.append(command)

    async def look(self, command):
        await self.warm(command)

    async def release(self, command):
        await self.warm(command)

    async def count(self, command):
        await self.warm(command)

    async def counts(self, command):
        return self.counted

    async def freed(self, command):
        return self.tokens

    async def answer(self, command, report):
        self.reports.append(report)

    async def answers(self, command):
        return self.reports


class MemoryAccess:
    """Keys, and what was done with them."""

    def __init__(self, store: MemoryStore) -> None:
        self.s = store
        self.stored: dict = {}
        self.deeds: list = []

    async def create(self, key, deed):
        self.stored[key.id] = key
        self.deeds.insert(0, deed)

    async def get(self, key_id):
        self.s.check()
        return self.stored.get(key_id)

    async def all(self):
        return list(self.stored.values())

    async def any(self):
        self.s.check()
        return bool(self.stored)

    async def revoke(self, key_id, deed):
        self.stored[key_id] = replace(self.stored[key_id], revoked_at=int(deed.at))
        self.deeds.insert(0, deed)
        return self.stored[key_id]

    async def log(self, limit):
        return self.deeds[:limit]


class MemoryAccounts:
    """Lets everybody in whose key is there, and counts nothing: limits are the real store's to test."""

    def __init__(self, store: MemoryStore) -> None:
        self.s = store

    async def admit(self, key_id, *, request, hold=None):
        self.s.check()
        key = self.s.access.stored.get(key_id)
        if key is None:
            return Verdict(State.UNKNOWN)
        return Verdict(State.REVOKED if key.revoked_at else State.OK)

    async def release(self, key_id, hold):
        pass

    async def settle(self, key_id=None):
        self.s.check()
        return 0

    async def review(self, *, early=0.0):
        return 0

    async def used(self, tenant, first, last):
        return []

    async def tenants(self):
        return []

    async def spent(self, tenant, key_ids, month):
        return [0 for _ in key_ids]


class MemoryRegistry:
    def __init__(self, store: MemoryStore) -> None:
        self.s = store

    async def put(self, report, *, ttl):
        self.s.reports[report.engine_id] = report
        if report.model and report.model not in self.s.known_models:
            self.s.known_models.append(report.model)

    async def engines(self):
        self.s.check()
        return list(self.s.reports.values())

    async def put_experts(self, engine_id, load, *, ttl):
        self.s.loads[engine_id] = load

    async def experts(self, engine_ids):
        self.s.check()
        return {engine_id: self.s.loads[engine_id] for engine_id in engine_ids if engine_id in self.s.loads}

    async def models(self):
        self.s.check()
        return list(self.s.known_models)

    async def ping(self):
        self.s.check()


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

    async def run(self) -> None:
        report = EngineReport("eng_1", EngineState.READY, "ready", time.time(), MODEL)
        await self.store.registry.put(report, ttl=3600)
        while True:
            await self.go.wait()
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
            return await self.store.turns.claim("eng_1", lease=60)
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
