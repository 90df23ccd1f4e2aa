"""The store: all ports on one client."""

from __future__ import annotations

from chatserver.adapters.valkey.access import ValkeyAccess
from chatserver.adapters.valkey.accounts import ValkeyAccounts
from chatserver.adapters.valkey.caches import ValkeyCaches
from chatserver.adapters.valkey.client import Client, connect
from chatserver.adapters.valkey.conversations import ValkeyConversations
from chatserver.adapters.valkey.registry import ValkeyRegistry
from chatserver.adapters.valkey.secrets import ValkeySecrets
from chatserver.adapters.valkey.signals import ValkeySignals
from chatserver.adapters.valkey.tapes import ValkeyTapes
from chatserver.adapters.valkey.turns import ValkeyTurns
from chatserver.ports.access import Access
from chatserver.ports.accounts import Accounts
from chatserver.ports.caches import Caches
from chatserver.ports.conversations import Conversations
from chatserver.ports.registry import Registry
from chatserver.ports.secrets import Secrets
from chatserver.ports.tapes import Signals, Tapes
from chatserver.ports.turns import RESPONSE_TTL, Turns


class ValkeyStore:
    """Everything that is kept, on one Redis server or cluster. Belongs to the event loop that opened it."""

    def __init__(self, client: Client, *, tape_ttl: int = RESPONSE_TTL) -> None:
        self._client = client
        self.conversations: Conversations = ValkeyConversations(client)
        self.turns: Turns = ValkeyTurns(client, tape_ttl)
        self.tapes: Tapes = ValkeyTapes(client)
        self.signals: Signals = ValkeySignals(client)
        self.caches: Caches = ValkeyCaches(client)
        self.registry: Registry = ValkeyRegistry(client)
        self.secrets: Secrets = ValkeySecrets(client)
        self.access: Access = ValkeyAccess(client)
        self.accounts: Accounts = ValkeyAccounts(client)

    @classmethod
    async def open(cls, url: str, *, tape_ttl: int = RESPONSE_TTL) -> ValkeyStore:
        """Return the store at a redis://, rediss:// or unix:// URL. Raises StartupError.

        `tape_ttl`: seconds for which what has ended is kept, see `RESPONSE_TTL`.
        """
        return cls(await connect(url), tape_ttl=tape_ttl)

    async def close(self) -> None:
        """Close all connections; running subscriptions close with their iterators. Idempotent."""
        await self._client.close()
