"""Items: the nodes of a conversation's tree.

    root ── user ── assistant ── user ── assistant      ← the head is the leaf that a new turn continues
                └── assistant (regenerated: a sibling)

Token ids live beside the item, not in it: readers of text never load them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """Who speaks. SUMMARY: the server, of what a cut dropped; no client can say it. TOOL: what a call gave."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    SUMMARY = "summary"
    TOOL = "tool"


class ItemStatus(StrEnum):
    """`incomplete`: the answer was stopped or cut off; what was written is kept."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"


class PartKind(StrEnum):
    """What a part of an item is: the model's reasoning, its text, a call of a tool; or what a call gave."""

    REASONING = "reasoning"
    TEXT = "text"
    CALL = "call"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an item. `text`: of a call its arguments, JSON as the model wrote it.

    `call_id`: of a call and of what it gave; `name`: of the tool. `width`: sequence numbers that its deltas took on
    the tape, 0 if nobody generated it.
    """

    kind: PartKind
    text: str
    call_id: str = ""
    name: str = ""
    width: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """What a client says: an item that has no place in a conversation yet. `parts`: as in `Item`."""

    role: str
    text: str
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """One message, or all that one answer consists of. `parent`: the item before it on its branch, None for the first.

    `parts`: () where `text` is all there is. An answer with reasoning or calls stays one item, so that its token ids
    stay one sequence and no cut comes between them; clients see a part as an item (`wire.items`). `text` is then the
    text parts' alone; of a TOOL item it is what the call gave.

    `response_id`: the response that wrote it, None if a client did. `created_at`: Unix seconds. `cost`: of a
    summary, tokens of its prompt, of them from the cache, and written.
    """

    id: str
    parent: str | None
    role: Role
    text: str
    status: ItemStatus = ItemStatus.COMPLETED
    response_id: str | None = None
    created_at: int = 0
    cost: tuple[int, ...] = ()
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredItem:
    """An item with the ids that stand for it in prompts; `ids` is None until an engine encoded it.

    `template_hash`: the tokenizer and template the ids were made with; under another they are made again.
    `emitted`: of an answer, what the model wrote, id by id: `ids` has the template's around it, and may leave
    some of it out (earlier reasoning, say).
    """

    item: Item
    ids: tuple[int, ...] | None = None
    template_hash: str = ""
    emitted: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation's own fields. `head`: leaf item that the next turn continues; `active`: the running response."""

    id: str
    tenant: str
    created_at: int
    updated_at: int = 0
    title: str = ""
    metadata: dict[str, str] | None = None
    head: str | None = None
    active: str | None = None
    tokens: int = 0
    """Prompt and answer of the turn that ended last: about what the next prompt begins with."""
