"""The ports of turns, tapes and signals in memory."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from chatserver.domain.item import Conversation
from chatserver.domain.response import Finish, Outcome, Status, Usage
from chatserver.domain.tape import (
    Accepted,
    Ended,
    Queued,
    Record,
)
from chatserver.errors import Conflict, NotFound, Overloaded
from chatserver.ports.tapes import Append, Appended, Attached
from chatserver.ports.turns import Begun

if TYPE_CHECKING:
    from tests.fakes.store import MemoryStore


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
        for one in (response, *turn.siblings):
            self.s.all_responses[one.id] = one
            self.s.all_tapes[one.id] = []
            self.s.add(one.id, [Record(0, Accepted()), Record(1, Queued())])
            self.s.waiting.append(one.id)
        if turn.watcher:
            self.s.watchers[response.id].add(turn.watcher)
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
            raise NotFound(f"No response with id {response_id!r}.", param="response_id")
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

    async def watch(self, response_ids, web_id):
        self.s.check()
        for response_id in response_ids:
            self.s.watchers[response_id].add(web_id)
        tapes = [self.s.all_tapes.get(response_id) for response_id in response_ids]
        return [tape[-1].last if tape else None for tape in tapes]

    async def attach(self, response_id, web_id, after, *, few):
        await self.watch([response_id], web_id)
        records = await self.read(response_id, after)
        if records and records[-1].last - after > few:
            return Attached(records[:8], all=len(records) <= 8)
        return Attached(records, all=True)

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
