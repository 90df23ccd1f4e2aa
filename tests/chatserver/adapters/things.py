"""Makes the values that the store's tests need."""

from __future__ import annotations

import os
from dataclasses import replace

from chatserver.adapters.valkey import ValkeyStore
from chatserver.domain.ids import new_id
from chatserver.domain.item import Conversation, Item, Message, Role
from chatserver.domain.response import Finish, Outcome, Params, Response, Status, Usage
from chatserver.domain.tape import Delta, Ended, ItemClosed, ItemOpened, Record, Started
from chatserver.ports.tapes import Append
from chatserver.ports.turns import Begun, NewTurn

TENANT = "acme"
NOW = 1_700_000_000
BOUND = 8
SHARD = 3
NO_ID = "0" * 30


def name(kind: str, shard: int = SHARD) -> str:
    return new_id(kind, shard, os.urandom(15))


def message(text: str = "hello", role: Role = Role.USER, shard: int = SHARD) -> Item:
    return Item(name("msg", shard), None, role, text, created_at=NOW)


def conversation(tenant: str = TENANT, shard: int = SHARD, at: int = NOW) -> Conversation:
    return Conversation(name("conv", shard), tenant, at, at)


def turn(
    conversation_id: str | None = None,
    *,
    texts: tuple[str, ...] = ("hello",),
    parent: str | None = None,
    shard: int = SHARD,
    tenant: str = TENANT,
    stored: bool = True,
    **options: object,
) -> NewTurn:
    """A turn with one user item a text; without a conversation it is stateless."""
    items = tuple(message(text, shard=shard) for text in texts) if conversation_id else ()
    response = Response(
        name("resp", shard),
        tenant,
        Params("model", messages=() if conversation_id else (Message("user", "hello"),)),
        NOW,
        conversation=conversation_id,
        parent=parent,
        inputs=tuple(item.id for item in items),
        item_id=name("msg", shard),
        stored=stored,
    )
    return NewTurn(response, items, **options)  # type: ignore[arg-type]


def first_turn(**options: object) -> NewTurn:
    """A turn that makes its conversation."""
    shard = options.get("shard", SHARD)
    assert isinstance(shard, int)
    return turn(name("conv", shard), create=True, **options)  # type: ignore[arg-type]


def outcome_of(response: Response, text: str = "", status: Status = Status.COMPLETED) -> Outcome:
    """An outcome with an answer item if there is a text."""
    parent = response.inputs[-1] if response.inputs else response.parent
    item = Item(response.item_id, parent, Role.ASSISTANT, text, response_id=response.id, created_at=NOW)
    return Outcome(status, Finish.STOP, Usage(3, 1, 2), item if text else None, completed_at=NOW + 5)


def closing(outcome: Outcome, first: int) -> tuple[Record, ...]:
    if outcome.item is None:
        return (Record(first, Ended(outcome)),)
    closed = Record(first + 2, ItemClosed(outcome.item.id, outcome.item.text, complete=True))
    return closed, Record(first + 3, Ended(outcome))


def opening(response: Response) -> Append:
    """What an engine writes first: sequence numbers 2 to 4."""
    records = (Record(2, Started(3, response.claim)), Record(4, ItemOpened(response.item_id)))
    return Append(response.id, response.claim, records)


def delta(response: Response, first: int, *pieces: str) -> Append:
    ids = tuple(range(first, first + len(pieces)))
    return Append(response.id, response.claim, (Record(first + len(pieces) - 1, Delta(pieces, ids)),))


async def answered(store: ValkeyStore, new: NewTurn, text: str = "hi") -> Response:
    """Begin a turn, have it claimed and finished; return the response as it is then."""
    await store.turns.begin(new, queue_bound=BOUND)
    (claimed,) = await store.turns.claim("eng-a", lease=30, shard=SHARD)
    assert claimed.id == new.response.id
    outcome = outcome_of(claimed, text)
    assert (await store.tapes.commit([opening(claimed)]))[0].ok
    ids = {new.items[0].id: (1, 2), claimed.item_id: (3, 4)} if new.items else {}
    assert await store.turns.finish(claimed, outcome, closing(outcome, 5), ids, template_hash="h")
    return replace(claimed, status=outcome.status, owner=None, outcome=outcome)


async def begin(store: ValkeyStore, new: NewTurn, bound: int = BOUND) -> Begun:
    return await store.turns.begin(new, queue_bound=bound)


async def claim(store: ValkeyStore, engine: str = "eng-a", lease: float = 30.0) -> Response:
    (claimed,) = await store.turns.claim(engine, lease=lease, shard=SHARD)
    return claimed


async def texts(store: ValkeyStore, conversation_id: str | None) -> list[str]:
    """The texts on the conversation's current branch."""
    assert conversation_id
    head = (await store.conversations.get(TENANT, conversation_id)).head
    branch = await store.conversations.branch(TENANT, conversation_id, head, with_ids=False)
    return [stored.item.text for stored in branch]


async def answer_it(store: ValkeyStore, new: NewTurn, text: str = "hi") -> None:
    claimed = await claim(store)
    assert claimed.id == new.response.id
    outcome = outcome_of(claimed, text)
    await store.tapes.commit([opening(claimed)])
    assert await store.turns.finish(claimed, outcome, closing(outcome, 5), {})
