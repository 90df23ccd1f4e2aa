"""Pages of a tenant's conversations, all of them or those that a search finds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from chatserver.domain.item import Conversation, Item
from chatserver.errors import NotFound
from chatserver.ports.conversations import Conversations
from chatserver.wire.commands import Page

STEP = 50
"""Conversations that are read at once."""
MOST_SEEN = 500
"""Conversations that one search looks at; it tells where the next one goes on."""
MOST_READ = 4_000_000
"""Characters of messages that one search reads."""


class Listing:
    """Lists and searches by time of last change."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations

    async def page(self, tenant: str, page: Page) -> tuple[list[Conversation], str | None]:
        """Return one page, and behind which conversation the next one begins; None: there is none.

        A search finds titles, metadata and messages that have all its words, in any case; it reads a bounded number
        of conversations, so that a page of it may be short, or empty, and others follow all the same.
        """
        if page.search:
            return await self._search(tenant, page, page.search.casefold().split())
        found = await self._some(tenant, page, page.after, page.limit + 1)
        more = len(found) > page.limit
        return found[: page.limit], found[page.limit - 1].id if more else None

    async def _search(
        self, tenant: str, page: Page, words: Sequence[str]
    ) -> tuple[list[Conversation], str | None]:
        found: list[Conversation] = []
        after, seen, read = page.after, 0, 0
        while batch := await self._some(tenant, page, after, STEP):
            for conversation in batch:
                if len(found) == page.limit or seen == MOST_SEEN or read > MOST_READ:
                    return found, after
                matches, characters = await self._look(tenant, conversation, words)
                if matches:
                    found.append(conversation)
                after, seen, read = conversation.id, seen + 1, read + characters
        return found, None

    async def _look(self, tenant: str, conversation: Conversation, words: Sequence[str]) -> tuple[bool, int]:
        """Return whether it has all words, and how many characters of messages were read for that."""
        labels = (conversation.title, *(conversation.metadata or {}).values())
        if _has_all(labels, words):
            return True, 0
        items = await self._items(tenant, conversation)
        texts = [item.text for item in items]
        return _has_all((*labels, *texts), words), sum(map(len, texts))

    async def _items(self, tenant: str, conversation: Conversation) -> list[Item]:
        try:
            stored = await self._conversations.branch(
                tenant, conversation.id, conversation.head, with_ids=False
            )
        except NotFound:
            return []  # deleted meanwhile
        return [s.item for s in stored]

    async def _some(self, tenant: str, page: Page, after: str | None, limit: int) -> list[Conversation]:
        return await self._conversations.list(
            tenant, limit=limit, after=after, newest_first=page.newest_first
        )


def _has_all(texts: Iterable[str], words: Sequence[str]) -> bool:
    left = set(words)
    for text in texts:
        folded = text.casefold()
        left = {word for word in left if word not in folded}
        if not left:
            return True
    return not left
