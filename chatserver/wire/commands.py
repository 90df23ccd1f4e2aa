"""What a client may ask for, checked and free of any wire form."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from chatserver.domain.item import Message
from chatserver.domain.response import Params
from chatserver.errors import BadRequest

NEW = "new"
"""In place of a conversation's id: make one."""


class Place(Enum):
    """HEAD: continue the conversation where it ends."""

    HEAD = "head"


@dataclass(frozen=True, slots=True)
class Orphan:
    """What a tool gave, without its call beside it. `field`: where the request has the call's id."""

    call_id: str
    field: str

    def refusal(self) -> BadRequest:
        """Return the error if the call is nowhere else either."""
        return BadRequest(
            f"{self.field}: no tool call found for what a tool gave with the call id {self.call_id!r}; "
            "expected the id of a call before it",
            param=self.field,
        )


@dataclass(frozen=True, slots=True)
class CreateResponse:
    """Ask for an answer to `messages`.

    `params.model` is as the client wrote it, "" for the default. `conversation` continues that one: at its
    head, or as a branch under item `parent` (None: a new first item). `previous` continues after that
    response, as a branch if something followed it. `continues` goes on with that response's answer, which was
    stopped or cut off: asked as it was, but for the bound on the output and the labels. `count`: how many answers
    to the same input. `store` False: nothing is kept past its end. `orphans`: of the messages, those whose calls must
    be in what they continue.
    """

    params: Params
    messages: tuple[Message, ...]
    conversation: str | None = None
    parent: str | Place | None = Place.HEAD
    previous: str | None = None
    continues: str | None = None
    count: int = 1
    store: bool = True
    stream: bool = False
    background: bool = False
    orphans: tuple[Orphan, ...] = ()


@dataclass(frozen=True, slots=True)
class CompleteChat:
    """Ask for `count` answers to a conversation that the client keeps. `include_usage`: send it as a last chunk.

    `fleeting`: said that nothing may be stored. `conversation`: where it is kept all the same, NEW for a new one.
    """

    params: Params
    messages: tuple[Message, ...]
    stream: bool = False
    include_usage: bool = False
    count: int = 1
    fleeting: bool = False
    conversation: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list. `after`: id of the last element the client has. `search`: only what has these words."""

    limit: int = 20
    after: str | None = None
    newest_first: bool = True
    search: str = ""
