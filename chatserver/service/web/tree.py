"""Conversations as trees: all branches, one branch, removing one, going on with a copy."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from chatserver.domain.ids import answer_of, shard_of, summary_id
from chatserver.domain.item import Conversation, Item, StoredItem
from chatserver.errors import NotFound
from chatserver.ports.conversations import Conversations
from chatserver.service.fresh import fresh_id
from chatserver.wire.commands import Page


class Tree:
    """What the web role does with branches. Every method raises NotFound for unknown and foreign alike."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations

    async def item(self, tenant: str, conversation_id: str, item_id: str) -> Item:
        """Return one item, on whatever branch it is."""
        _check(conversation_id, "conversation_id", "conv")
        item_id = _item_id(item_id, "item_id")
        (found,) = await self._conversations.some(tenant, conversation_id, [item_id])
        if found is None:
            raise NotFound(f"Nothing here has the id {item_id!r}.", param="item_id")
        return found.item

    async def with_summaries(self, tenant: str, conversation_id: str, items: Sequence[Item]) -> list[Item]:
        """Return items of one branch, before each the summary that ends with it, if there is one."""
        found = await self._summaries(tenant, conversation_id, items)
        pairs = [
            (summary.item, item) if summary else (item,) for summary, item in zip(found, items, strict=True)
        ]
        return [item for pair in pairs for item in pair]

    async def branch(self, tenant: str, conversation_id: str, leaf: str | None = None) -> list[Item]:
        """Return the items from the root to `leaf`; None: to the conversation's head."""
        _check(conversation_id, "conversation_id", "conv")
        if leaf is None:
            leaf = (await self._conversations.get(tenant, conversation_id)).head
        if leaf is not None:
            leaf = _item_id(leaf, "leaf")
        stored = await self._conversations.branch(tenant, conversation_id, leaf, with_ids=False)
        return [s.item for s in stored]

    async def through(self, tenant: str, conversation_id: str, item_id: str) -> list[Item]:
        """Return the items of a branch that has that item: the head's if it has, else the one that ends last."""
        _check(item_id, "through", "msg")
        at_head = await self.branch(tenant, conversation_id)
        if any(item.id == item_id for item in at_head):
            return at_head
        below = _below(await self._conversations.links(tenant, conversation_id))
        leaves, going = [], [item_id]
        while going:
            name = going.pop()
            going += below.get(name, ())
            leaves += [] if below.get(name) else [name]
        ends = await self._in_order(tenant, conversation_id, leaves)
        return await self.branch(tenant, conversation_id, ends[-1] if ends else item_id)

    async def siblings(
        self, tenant: str, conversation_id: str, branch: Sequence[Item], page: Sequence[Item]
    ) -> dict[str | None, list[str]]:
        """Return what stands under the same parent, oldest first, by parent, for the items of `page` and their leaf.

        `branch`: from the root to the leaf that `page` is of. A parent with one item under it may be left out.
        """
        below = _below(await self._conversations.links(tenant, conversation_id, unless=len(branch)))
        parents = {item.parent for item in page} | {item.id for item in branch[-1:]}
        families = {parent: below[parent] for parent in parents if parent in below}
        names = list(dict.fromkeys(name for family in families.values() for name in family))
        places = {name: n for n, name in enumerate(await self._in_order(tenant, conversation_id, names))}
        return {
            parent: sorted(filter(places.__contains__, family), key=places.__getitem__)
            for parent, family in families.items()
        }

    async def _in_order(self, tenant: str, conversation_id: str, item_ids: Sequence[str]) -> list[str]:
        """Return the ids of those that are still there, the oldest first: ids sort by time, within a second, too."""
        found = await self._conversations.some(tenant, conversation_id, item_ids)
        there = [stored.item for stored in found if stored is not None]
        return [item.id for item in sorted(there, key=lambda item: (item.created_at, item.id))]

    async def all(self, tenant: str, conversation_id: str, page: Page) -> list[Item]:
        """Return items of all branches, parents before what follows them: enough for a page, and one more.

        The first is the one that `page.after` is a part of.
        """
        _check(conversation_id, "conversation_id", "conv")
        after = None if page.after is None else _item_id(page.after, "after")
        found = await self._conversations.all_items(
            tenant, conversation_id, limit=page.limit + 1, after=after
        )
        return found if after is None else [await self.item(tenant, conversation_id, after), *found]

    async def remove(self, tenant: str, conversation_id: str, item_id: str) -> Conversation:
        """Remove an item and everything under it. Raises Conflict (a turn runs)."""
        _check(conversation_id, "conversation_id", "conv")
        item_id = _item_id(item_id, "item_id")
        return await self._conversations.remove(tenant, conversation_id, item_id, int(time.time()))

    async def fork(
        self, tenant: str, conversation_id: str, leaf: str | None, metadata: dict[str, str] | None
    ) -> Conversation:
        """Make a conversation that begins with a branch of this one; `leaf` None: with the one at its head.

        The items keep their ids, their token ids, their summaries and their answers' ledgers: the fork is warm, and cut
        where it was.
        """
        _check(conversation_id, "conversation_id", "conv")
        source = await self._conversations.get(tenant, conversation_id)
        leaf = leaf or source.head
        if leaf is not None:
            leaf = _item_id(leaf, "leaf")
        stored = await self._conversations.branch(tenant, conversation_id, leaf, with_ids=True)
        now = int(time.time())
        copy = replace(
            source,
            id=fresh_id("conv", shard_of(conversation_id) or 0),
            created_at=now,
            updated_at=now,
            metadata=source.metadata if metadata is None else metadata,
            head=leaf,
            active=None,
        )
        summaries = await self._summaries(tenant, conversation_id, [s.item for s in stored])
        await self._conversations.create(
            copy, [s.item for s in stored], {s.item.id: s for s in stored if s.ids is not None}
        )
        for summary in filter(None, summaries):
            await self._conversations.place(
                tenant, copy.id, summary.item, summary.ids or (), summary.template_hash
            )
        return copy

    async def _summaries(
        self, tenant: str, conversation_id: str, items: Sequence[Item]
    ) -> list[StoredItem | None]:
        """Return the summary that ends with each item, None where there is none."""
        wanted = [summary_id(item.id) for item in items]
        return await self._conversations.some(tenant, conversation_id, wanted)


def _below(links: Mapping[str, str | None]) -> dict[str | None, list[str]]:
    """Return what lies right under each item; summaries, which lie beside the branches, are left out."""
    below: dict[str | None, list[str]] = {}
    for name, above in links.items():
        if shard_of(name, "cmp") is None:
            below.setdefault(above, []).append(name)
    return below


def _item_id(identifier: str, param: str) -> str:
    """Return the id of the item that has this one, or a part with it. Raises NotFound."""
    item_id = answer_of(identifier)
    _check(item_id, param, "msg", "cmp")
    return item_id


def _check(identifier: str, param: str, *kinds: str) -> None:
    if shard_of(identifier, *kinds) is None:
        raise NotFound(f"Nothing here has the id {identifier[:80]!r}.", param=param)
