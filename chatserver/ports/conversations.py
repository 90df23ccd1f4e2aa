"""Where conversations and their items are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from chatserver.domain.item import Conversation, Item, StoredItem
from chatserver.domain.response import Response


class Conversations(Protocol):
    """Durable trees of items. Every method takes the tenant: unknown and foreign give the same NotFound."""

    async def create(
        self,
        conversation: Conversation,
        items: Sequence[Item] = (),
        encoded: Mapping[str, StoredItem] | None = None,
    ) -> None:
        """Store a new conversation with its first items in one step. `encoded`: those with token ids, by item id."""
        ...

    async def get(self, tenant: str, conversation_id: str) -> Conversation:
        """Return it. Raises NotFound."""
        ...

    async def update(
        self,
        tenant: str,
        conversation_id: str,
        *,
        title: str | None = None,
        metadata: dict[str, str] | None = None,
        now: int,
    ) -> Conversation:
        """Change what is given; None leaves a field as it is. Raises NotFound."""
        ...

    async def delete(self, tenant: str, conversation_id: str) -> None:
        """Remove it, its items and ids, its responses and their tapes. Raises NotFound, Conflict (a turn runs)."""
        ...

    async def list(
        self, tenant: str, *, limit: int, after: str | None = None, newest_first: bool = True
    ) -> list[Conversation]:
        """Return up to `limit` conversations by time of last change, from the one after `after` on."""
        ...

    async def append(
        self, tenant: str, conversation_id: str, items: Sequence[Item], now: int
    ) -> Conversation:
        """Add items under the head, first to last, and move the head. Raises NotFound, Conflict (a turn runs)."""
        ...

    async def branch(
        self, tenant: str, conversation_id: str, leaf: str | None, *, with_ids: bool
    ) -> list[StoredItem]:
        """Return the items from the root to `leaf` (None: an empty list). Raises NotFound.

        At most MAX_BRANCH items; without `with_ids` every `ids` is None.
        """
        ...

    async def path(self, tenant: str, conversation_id: str, leaf: str | None) -> list[str]:
        """Return the ids of the items from the root to `leaf`. Raises NotFound."""
        ...

    async def all_items(
        self, tenant: str, conversation_id: str, *, limit: int, after: str | None = None
    ) -> list[Item]:
        """Return up to `limit` items of all branches in order of (depth, id), behind `after`. Raises NotFound."""
        ...

    async def links(self, tenant: str, conversation_id: str, *, unless: int = 0) -> dict[str, str | None]:
        """Return the item above each item, of all branches and summaries; None above the first ones.

        Empty if there are `unless` items: whoever knows a branch as long as that knows them all. Raises NotFound.
        """
        ...

    async def some(
        self, tenant: str, conversation_id: str, item_ids: Sequence[str]
    ) -> list[StoredItem | None]:
        """Return items by their ids, None for those that are not there. Raises NotFound (the conversation)."""
        ...

    async def place(
        self,
        tenant: str,
        conversation_id: str,
        item: Item,
        ids: Sequence[int],
        template_hash: str,
        *,
        payer: Response | None = None,
    ) -> None:
        """Store an item under its parent and beside the branches: no head moves. One that exists stays as it is.

        The same step leaves a bill over `item.cost` for the key that pays for `payer`; for an item that is there
        already it leaves none. Raises NotFound (the conversation, the parent).
        """
        ...

    async def remove(self, tenant: str, conversation_id: str, item_id: str, now: int) -> Conversation:
        """Remove an item and all that is under it; a head among them moves up. Raises NotFound, Conflict."""
        ...


MAX_BRANCH = 10_000
"""Bound on the items of one branch; appending past it is refused with Conflict."""
