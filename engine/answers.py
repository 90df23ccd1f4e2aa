"""What an answer is to be made of, and how its text is taken apart: reasoning, text, calls of tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class PieceKind(StrEnum):
    """What a piece of an answer is more of."""

    REASONING = "reasoning"
    TEXT = "text"
    CALL = "call"


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an answer. `text`: of a call, more of its arguments.

    `call`: which of the answer's calls, from 0. `name`: of the tool, on the piece that begins a call.
    """

    kind: PieceKind
    text: str
    call: int = 0
    name: str = ""


class Choice(StrEnum):
    """Whether tools may, may not or must be called."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class Form:
    """What a request says about the form of its answer.

    `thinking`: whether the model reasons first, None = as it does by itself. `tools`: a JSON list of what it may
    call, in the Chat Completions dialect, "" for none. `choice`: a Choice, or the name of the tool that must be called.
    `parallel`: whether it may call more than once. `schema`: JSON Schema of the answer's text, "" for free text.
    """

    thinking: bool | None = None
    tools: str = ""
    choice: str = Choice.AUTO
    parallel: bool = True
    schema: str = ""

    @property
    def calls(self) -> bool:
        """Whether the answer may call tools."""
        return bool(self.tools) and self.choice != Choice.NONE

    @property
    def must_call(self) -> bool:
        """Whether the answer has to call a tool."""
        return self.calls and self.choice != Choice.AUTO

    @property
    def several(self) -> bool:
        """Whether it may call more than once; a tool that is chosen by name is called once, as OpenAI's API does."""
        return self.parallel and self.choice in set(Choice)


FREE = Form()
"""Text, as the model writes it by itself."""


class Splitter(Protocol):
    """Takes an answer's text apart. A pure function of what was pushed, so that feeding it again leads to its state."""

    def push(self, text: str) -> Sequence[Piece]:
        """Return what `text` adds, [] if it belongs to a mark or has to wait for more. Modifies the splitter."""
        ...

    def flush(self) -> Sequence[Piece]:
        """Return what was held back. Nothing may be pushed after it."""
        ...
