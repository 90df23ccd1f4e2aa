"""All ports on shared dictionaries."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from chatserver.domain.item import Conversation, Item
from chatserver.domain.response import Response
from chatserver.domain.tape import (
    Record,
)
from chatserver.errors import Unavailable
from chatserver.ports.registry import EngineReport, ExpertLoad, ServedModel
from tests.fakes.conversations import MemoryConversations
from tests.fakes.others import MemoryAccess, MemoryAccounts, MemoryCaches, MemoryRegistry
from tests.fakes.turns import MemorySignals, MemoryTapes, MemoryTurns


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
