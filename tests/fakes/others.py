"""The ports of caches, keys, accounts and the registry in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from chatserver.ports.accounts import State, Verdict

if TYPE_CHECKING:
    from tests.fakes.store import MemoryStore


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
        return len(self.s.reports)

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
