"""What the web role does for clients: conversations, responses, and reading their tapes.

Every command takes the tenant that the door authenticated. Knows text and positions, no tokens' meaning.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from chatserver.domain.ids import SHARDS, shard_of
from chatserver.domain.item import Conversation, Item, Message
from chatserver.domain.response import Response
from chatserver.domain.tape import Ended, Record, Started
from chatserver.errors import BadRequest, NotFound
from chatserver.ports.caches import Caches
from chatserver.ports.conversations import Conversations
from chatserver.ports.registry import Registry
from chatserver.ports.turns import Turns
from chatserver.service.fresh import fresh_id
from chatserver.service.web.admission import NOBODY, Payer
from chatserver.service.web.asking import Asking
from chatserver.service.web.calls import Calls
from chatserver.service.web.counting import Counting
from chatserver.service.web.feeds import Feeds
from chatserver.service.web.hub import Hub
from chatserver.service.web.listing import Listing
from chatserver.service.web.models import Models
from chatserver.service.web.places import Spots, chain, title_of
from chatserver.service.web.prices import Prices
from chatserver.service.web.reader import Reader, outcome_in, refuse_outcome
from chatserver.service.web.replay import Replayed, replay
from chatserver.service.web.tree import Tree
from chatserver.service.web.waiting import QueuePlaces
from chatserver.service.web.warmth import Warmth
from chatserver.settings import Settings
from chatserver.wire.commands import CompleteChat, CreateResponse, Orphan, Page

REFUSAL_PATIENCE = 1.0
"""Seconds for which a streamed answer's headers wait, so that a refused prompt can still be an HTTP error."""


_ADMITTED = (Started, Ended)
"""After these an engine has looked at the prompt."""


class Chat:
    """Commands and queries of the web role."""

    def __init__(
        self,
        *,
        conversations: Conversations,
        turns: Turns,
        registry: Registry,
        caches: Caches,
        hub: Hub,
        feeds: Feeds,
        settings: Settings,
        prices: Prices | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.models = Models(registry)
        """What is served."""
        self.warmth = Warmth(conversations, caches, registry)
        self.places = QueuePlaces(turns, hub)
        """What is warm in the engines' caches."""
        self.feeds = feeds
        """What changes in conversations."""
        self.tree = Tree(conversations)
        """Branches of conversations."""
        self._conversations = conversations
        self._listing = Listing(conversations)
        self._turns = turns
        self._hub = hub
        self._settings = settings
        self._clock = clock
        self._calls = Calls(conversations, turns)
        self._spots = Spots(conversations, turns, self._calls)
        self.counting = Counting(self._spots, self.models, caches, registry)
        """How long prompts are."""
        self._asking = Asking(
            turns,
            self.models,
            self._spots,
            hub=hub,
            settings=settings,
            prices=prices or Prices(),
            clock=clock,
        )

    # Conversations

    async def create_conversation(
        self, tenant: str, metadata: dict[str, str], messages: Sequence[Message]
    ) -> Conversation:
        """Make a conversation with its first items."""
        shard = secrets.randbelow(SHARDS)
        now = int(self._clock())
        items = chain(messages, None, now, lambda: fresh_id("msg", shard))
        conversation = Conversation(
            id=fresh_id("conv", shard),
            tenant=tenant,
            created_at=now,
            updated_at=now,
            title=title_of(messages),
            metadata=metadata,
            head=items[-1].id if items else None,
        )
        await self._conversations.create(conversation, items)
        return conversation

    async def conversation(self, tenant: str, conversation_id: str) -> Conversation:
        """Return it. Raises NotFound."""
        _check_id(conversation_id, "conversation", "conv")
        return await self._conversations.get(tenant, conversation_id)

    async def running(self, tenant: str, conversation_id: str) -> list[Response]:
        """Return its responses that have not ended. Raises NotFound."""
        _check_id(conversation_id, "conversation", "conv")
        return await self._turns.running(tenant, conversation_id)

    async def conversations(self, tenant: str, page: Page) -> tuple[list[Conversation], str | None]:
        """See `Listing.page`. Raises NotFound if `page.after` is not a conversation."""
        if page.after is not None:
            _check_id(page.after, "after", "conv")
        return await self._listing.page(tenant, page)

    async def update_conversation(
        self, tenant: str, conversation_id: str, title: str | None, metadata: dict[str, str] | None
    ) -> Conversation:
        """Change what is given. Raises NotFound."""
        _check_id(conversation_id, "conversation", "conv")
        return await self._conversations.update(
            tenant, conversation_id, title=title, metadata=metadata, now=int(self._clock())
        )

    async def delete_conversation(self, tenant: str, conversation_id: str) -> int | None:
        """Remove it and all that belongs to it; return how many tokens of KV that freed, None if nobody can tell.

        Raises NotFound, Conflict (a turn runs).
        """
        _check_id(conversation_id, "conversation", "conv")
        await self._conversations.delete(tenant, conversation_id)
        return await self.warmth.released(tenant, conversation_id)

    async def add_items(
        self, tenant: str, conversation_id: str, messages: Sequence[Message], orphans: Sequence[Orphan] = ()
    ) -> list[Item]:
        """Append messages without asking for an answer. `orphans`: of them, whose calls must be there already.

        Raises NotFound, BadRequest (a call is not there), Conflict (a turn runs).
        """
        conversation = await self.conversation(tenant, conversation_id)
        await self._calls.check(tenant, conversation_id, conversation.head, orphans, at_head=True)
        shard = _check_id(conversation_id, "conversation", "conv")
        now = int(self._clock())
        items = chain(messages, conversation.head, now, lambda: fresh_id("msg", shard))
        await self._conversations.append(tenant, conversation_id, items, now)
        return items

    # Responses

    async def respond(
        self,
        tenant: str,
        ask: CreateResponse,
        *,
        key: str | None = None,
        fingerprint: str = "",
        watch: bool = True,
        payer: Payer = NOBODY,
    ) -> tuple[Response, bool]:
        """See `Asking.respond`."""
        self._hub.check()
        return await self._asking.respond(
            tenant, ask, key=key, fingerprint=fingerprint, watch=watch, payer=payer
        )

    async def complete(
        self,
        tenant: str,
        ask: CompleteChat,
        *,
        key: str | None = None,
        fingerprint: str = "",
        payer: Payer = NOBODY,
    ) -> tuple[Response, bool]:
        """See `Asking.complete`."""
        self._hub.check()
        return await self._asking.complete(tenant, ask, key=key, fingerprint=fingerprint, payer=payer)

    async def response(self, tenant: str, response_id: str) -> Response:
        """Return it. Raises NotFound."""
        _check_id(response_id, "response", "resp", "chatcmpl")
        return await self._spots.told(await self._turns.get(tenant, response_id))

    async def stop(self, tenant: str, response_id: str) -> Response:
        """Ask for its end, keeping what was written; idempotent. Raises NotFound."""
        _check_id(response_id, "response", "resp", "chatcmpl")
        return await self._spots.told(await self._turns.stop(tenant, response_id, int(self._clock())))

    async def delete_response(self, tenant: str, response_id: str) -> None:
        """Forget it; its items stay in their conversation. Raises NotFound, Conflict (it still runs)."""
        _check_id(response_id, "response", "resp", "chatcmpl")
        await self._turns.delete(tenant, response_id)

    async def input_items(self, tenant: str, response_id: str) -> list[Item]:
        """Return what the model saw (or will see, while it is queued), first to last. Raises NotFound."""
        response = await self.response(tenant, response_id)
        return await self._spots.seen_by(response)

    # Reading

    async def read(self, tenant: str, response_id: str, after: int = -1) -> tuple[Response, Reader]:
        """Return a response and a reader of its tape after that position; close the reader in the end.

        Raises NotFound, BadRequest (the tape has no such position yet), Unavailable.
        """
        self._hub.check()
        response = await self.response(tenant, response_id)
        try:
            return await self._follow(response, after)
        except NotFound:
            response = await self.response(tenant, response_id)
            if response.outcome is None:
                raise
            return response, Replayed(response_id, replay(response), after)

    async def attach(self, response: Response, *, fresh: bool, resumable: bool) -> Reader:
        """Return a reader, from the start, of what `respond` or `complete` just returned.

        `resumable`: its client can come back for the rest when this process has to stop.
        """
        if fresh:
            return self._hub.follow(response.id, watched=True, dismissible=resumable)
        return (await self.read(response.tenant, response.id))[1]

    async def opening(self, reader: Reader, *, patience: float = REFUSAL_PATIENCE) -> list[Record]:
        """Read until an engine has admitted the prompt, for `patience` seconds at most; return what was read.

        Raises what the response failed with, if it failed before its first word.
        """
        deadline = asyncio.get_running_loop().time() + patience
        records: list[Record] = []
        while not reader.ended and not any(type(r.body) in _ADMITTED for r in records):
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                break
            records += await reader.batch(left)
        outcome = outcome_in(records)
        if outcome is not None:
            refuse_outcome(outcome)
        return records

    async def _follow(self, response: Response, after: int) -> tuple[Response, Reader]:
        """As `read`, from the tape. Raises NotFound if it is gone, BadRequest, Unavailable."""
        reader = self._hub.follow(response.id, after)
        try:
            found = await reader.attach()
        except BaseException:
            await reader.aclose()
            raise
        # Whoever has seen `after` can see it again: it was durable before it was announced.
        over = bool(found) and isinstance(found[0].body, Ended) and found[0].last == after
        if found and not over:
            # what it ended with comes from the tape; a reader that stalls need not keep it, too
            return replace(response, outcome=None), reader
        await reader.aclose()
        if over:
            return response, Replayed(response.id, (), after)  # there is nothing to wait for
        raise BadRequest(
            f"starting_after: expected a sequence number that this response has reached, got {after}",
            param="starting_after",
        )


def _check_id(identifier: str, what: str, *kinds: str) -> int:
    shard = shard_of(identifier, *kinds)
    if shard is None:
        raise NotFound(f"No {what} with id {identifier[:80]!r}.", param=f"{what}_id")
    return shard
