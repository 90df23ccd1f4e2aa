"""Where a new answer goes: which conversation, under which item, seeing what.

conversation                 at its head, alone                     exclusive
conversation {id, parent}    under that item                        branch
previous_response_id         under that response's answer           branch
continue                     beside that response's answer          branch, begins with that answer's ids
neither                      a new conversation                     create
store: false                 nowhere: the history goes along        inline
X-Conversation-Id            where the messages leave the head's branch, so that the model sees just them
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b

from chatserver.domain.ids import ENTROPY_BYTES, TIME_BYTES, answer_of, new_id, shard_of, time_of
from chatserver.domain.item import Item, ItemStatus, Message, Role
from chatserver.domain.response import Params, Response, Usage
from chatserver.errors import BadRequest, Conflict, NotFound
from chatserver.ports.conversations import Conversations
from chatserver.ports.turns import Turns
from chatserver.service.web.calls import Calls
from chatserver.wire.commands import NEW, CompleteChat, CreateResponse, Place

TITLE_LENGTH = 80


@dataclass(frozen=True, slots=True)
class Spot:
    """`messages` become items under `parent`; `inline` is the whole prompt of a stateless answer."""

    shard: int | None
    conversation: str | None = None
    parent: str | None = None
    messages: tuple[Message, ...] = ()
    inline: tuple[Message, ...] = ()
    exclusive: bool = False
    create: bool = False
    model: str = ""
    """Model of the previous response, for a request that names none."""
    continues: str | None = None
    params: Params | None = None
    """How the response whose answer goes on was asked for."""
    tokens: int = 0
    """About how many tokens the branch has that is continued."""


@contextmanager
def named(field: str) -> Iterator[None]:
    """Have what is not found be told by the field that asked for it."""
    try:
        yield
    except NotFound as error:
        raise NotFound(error.message, param=field, code=error.code) from None


class Spots:
    """Finds the place of a new answer, and what an old one saw."""

    def __init__(self, conversations: Conversations, turns: Turns, calls: Calls) -> None:
        self._conversations = conversations
        self._turns = turns
        self._calls = calls

    async def find(self, tenant: str, ask: CreateResponse) -> Spot:
        """Return the spot. Raises NotFound, Conflict, BadRequest."""
        if ask.continues is not None:
            return await self._going_on(tenant, ask.continues)
        if ask.conversation is not None:
            return await self._in_conversation(tenant, ask, ask.conversation)
        if ask.previous is not None:
            return await self._after(tenant, ask, ask.previous)
        if not ask.store:
            return Spot(None, inline=ask.messages)
        return Spot(None, messages=ask.messages, create=True)

    async def of_chat(self, tenant: str, ask: CompleteChat) -> Spot:
        """Return the spot of a Chat Completion. Raises NotFound.

        Its `messages` are the whole history. Where a conversation has them already they are not stored again: what is
        new goes under the last that is the same, as a branch if the conversation went on from there otherwise.
        """
        if ask.conversation is None:
            return Spot(None, inline=ask.messages)
        if ask.conversation == NEW:
            return Spot(None, messages=ask.messages, create=True)
        shard = shard_of(ask.conversation, "conv")
        if shard is None:
            raise NotFound(f"No conversation with id {ask.conversation[:80]!r}.", param="X-Conversation-Id")
        with named("X-Conversation-Id"):
            conversation = await self._conversations.get(tenant, ask.conversation)
        items = await self.branch(tenant, ask.conversation, conversation.head)
        same = _alike(items, ask.messages)
        return Spot(
            shard,
            ask.conversation,
            items[same - 1].id if same else None,
            ask.messages[same:],
            exclusive=same == len(items),
            tokens=conversation.tokens,
        )

    async def branch(self, tenant: str, conversation_id: str, leaf: str | None) -> list[Item]:
        """Return the items from the root to `leaf`. Raises NotFound."""
        stored = await self._conversations.branch(tenant, conversation_id, leaf, with_ids=False)
        return [s.item for s in stored]

    async def told(self, response: Response) -> Response:
        """Return a response with the lists of its ledger, which are not stored, if its branch still exists."""
        outcome = response.outcome
        if outcome is None or outcome.ledger is None or response.conversation is None:
            return response
        leaf = response.inputs[-1] if response.inputs else response.parent
        try:
            path = await self._conversations.path(response.tenant, response.conversation, leaf)
        except NotFound:
            return response
        return replace(response, outcome=replace(outcome, ledger=outcome.ledger.of_branch(path)))

    async def seen_by(self, response: Response) -> list[Item]:
        """Return the items of a response's prompt. Raises NotFound."""
        if response.conversation is None:
            return _inline_items(response)
        outcome = (await self.told(response)).outcome
        ledger = outcome.ledger if outcome else None
        leaf = response.inputs[-1] if response.inputs else response.parent
        try:
            items = await self.branch(response.tenant, response.conversation, leaf)
        except NotFound:
            # A refused turn's input was taken back.
            items = await self.branch(response.tenant, response.conversation, response.parent)
        dropped = frozenset(ledger.dropped) if ledger else frozenset()
        return [item for item in items if item.id not in dropped]

    async def _in_conversation(self, tenant: str, ask: CreateResponse, conversation_id: str) -> Spot:
        shard = shard_of(conversation_id, "conv")
        if shard is None:
            raise NotFound(f"No conversation with id {conversation_id[:80]!r}.", param="conversation")
        with named("conversation"):
            conversation = await self._conversations.get(tenant, conversation_id)
        at_head = ask.parent is Place.HEAD
        parent = conversation.head if isinstance(ask.parent, Place) else ask.parent and answer_of(ask.parent)
        if parent is None and not ask.messages:
            raise BadRequest("input: expected at least one message, the conversation is empty", param="input")
        await self._calls.check(tenant, conversation_id, parent, ask.orphans, at_head=at_head)
        return Spot(
            shard, conversation_id, parent, ask.messages, exclusive=at_head, tokens=conversation.tokens
        )

    async def _after(self, tenant: str, ask: CreateResponse, previous_id: str) -> Spot:
        shard, conversation, previous = await self._kept(tenant, previous_id, "previous_response_id")
        parent = _leaf(previous)
        await self._calls.check(tenant, conversation, parent, ask.orphans, at_head=False)
        model = previous.params.model
        if ask.store:
            tokens = _size(previous)
            return Spot(shard, conversation, parent, ask.messages, model=model, tokens=tokens)
        history = await self.branch(tenant, conversation, parent)
        inline = tuple(Message(item.role.value, item.text, item.parts) for item in history) + ask.messages
        return Spot(shard, inline=inline, model=model)

    async def _going_on(self, tenant: str, response_id: str) -> Spot:
        """Return the spot beside an answer that was stopped or cut off. Raises NotFound, Conflict, BadRequest."""
        shard, conversation, earlier = await self._kept(tenant, response_id, "continue")
        item = earlier.outcome.item if earlier.outcome else None
        if earlier.outcome is None:
            raise still_runs(response_id, "continue")
        if item is None:
            raise BadRequest(
                f"continue: {response_id!r} ended before its first word; ask again instead", param="continue"
            )
        if item.status is not ItemStatus.INCOMPLETE:
            raise BadRequest(
                f"continue: expected an answer that was stopped or cut off, {response_id!r} is {item.status.value}",
                param="continue",
            )
        if await self._conversations.some(tenant, conversation, [item.id]) == [None]:
            raise NotFound(f"The answer of {response_id!r} was removed.", param="continue")
        return Spot(
            shard,
            conversation,
            item.parent,
            model=earlier.params.model,
            continues=item.id,
            params=earlier.params,
        )

    async def _kept(self, tenant: str, response_id: str, param: str) -> tuple[int, str, Response]:
        """Return the shard and the conversation of a response, and it. Raises NotFound."""
        shard = shard_of(response_id, "resp", "chatcmpl")
        if shard is None:
            raise NotFound(f"No response with id {response_id[:80]!r}.", param=param)
        with named(param):
            found = await self._turns.get(tenant, response_id)
        if found.conversation is None:
            raise NotFound(
                f"The response {response_id!r} was not stored (store: false), so it cannot be continued.",
                param=param,
            )
        return shard, found.conversation, found


def still_runs(response_id: str, param: str) -> Conflict:
    """Return the error for going on behind an answer that has not ended."""
    return Conflict(
        f"The response {response_id!r} still runs: wait for its end or stop it, then continue it.",
        param=param,
        retry_after=1.0,
    )


def chain(
    messages: Sequence[Message], parent: str | None, now: int, make_id: Callable[[], str]
) -> list[Item]:
    """Return messages as items, each under the one before it."""
    items: list[Item] = []
    for message in messages:
        above = items[-1].id if items else parent
        items.append(_item(make_id(), above, message, now))
    return items


def _alike(items: Sequence[Item], messages: Sequence[Message]) -> int:
    """Return how many messages are the first items. Clients need not give reasoning back."""
    pairs = enumerate(zip(items, messages, strict=False))
    differs = (i for i, (item, said) in pairs if not _same(item, said))
    return next(differs, min(len(items), len(messages)))


def _same(item: Item, said: Message) -> bool:
    kept, given = ([p for p in parts if p.call_id] for parts in (item.parts, said.parts))
    calls = [[(p.call_id, p.name, p.text) for p in parts] for parts in (kept, given)]
    return (item.role.value, item.text) == (said.role, said.text) and calls[0] == calls[1]


def title_of(messages: Sequence[Message]) -> str:
    """Return a title: the beginning of the first line that the user wrote."""
    for message in messages:
        line = message.text.strip().partition("\n")[0].strip()
        if message.role == Role.USER and line:
            return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1].rstrip() + "…"
    return ""


def _size(previous: Response) -> int:
    """Return how many tokens the branch had when a response ended."""
    used = previous.outcome.usage if previous.outcome else Usage()
    return used.prompt + used.output


def _leaf(previous: Response) -> str | None:
    """Return the item that a continuation of a response goes under."""
    outcome = previous.outcome
    if outcome is None:
        raise still_runs(previous.id, "previous_response_id")
    if outcome.item is not None:
        return outcome.item.id
    if outcome.failure is not None:
        raise Conflict(
            f"The response {previous.id!r} failed before its first word: continue the one before it.",
            param="previous_response_id",
        )
    return previous.inputs[-1] if previous.inputs else previous.parent  # stopped while it was queued


def _inline_items(response: Response) -> list[Item]:
    """Return a stateless prompt as items, with ids that are the same each time."""
    shard = shard_of(response.id) or 0
    items: list[Item] = []
    for index, message in enumerate(response.params.messages):
        guess = blake2b(f"{response.id}/{index}".encode(), digest_size=ENTROPY_BYTES - TIME_BYTES).digest()
        parent = items[-1].id if items else None
        identifier = new_id("msg", shard, time_of(response.id) + guess)
        items.append(_item(identifier, parent, message, response.created_at))
    return items


def _item(identifier: str, parent: str | None, message: Message, now: int) -> Item:
    return Item(identifier, parent, Role(message.role), message.text, created_at=now, parts=message.parts)
