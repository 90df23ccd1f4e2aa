"""The port of conversations in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from chatserver.domain.item import StoredItem
from chatserver.errors import Conflict, NotFound

if TYPE_CHECKING:
    from tests.fakes.store import MemoryStore


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
            raise NotFound(f"No conversation with id {conversation_id!r}.", param="conversation_id")
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
