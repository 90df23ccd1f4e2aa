"""Items: the nodes of a conversation's tree.

    root ── user ── assistant ── user ── assistant      ← the head is the leaf that a new turn continues
                └── assistant (regenerated: a sibling)

Token ids live beside the item, not in it: readers of text never load them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """Who speaks in a message. SUMMARY: the server, of what a cut dropped; no client can say it."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    SUMMARY = "summary"


class ItemStatus(StrEnum):
    """`incomplete`: the answer was stopped or cut off; what was written is kept."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True, slots=True)
class Item:
    """One message. `parent`: the item before it on its branch, None for the first.

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
