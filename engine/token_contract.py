"""The engine contract's part about tokens: text to ids and back, and answers as later prompts have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Difference:
    """Where an answer's ids in the cache (cue + emitted + tail) leave what the template would show of its text.

    `why`: reasoning (the template drops it), spaces (it strips them), split (the same text in other tokens), text
    (the text does not say all that was emitted). `at`: the first index that differs. `emitted`, `rendered`: tokens
    of both. `rewritten`: later prompts have it as the template shows it; else as it was emitted.
    """

    why: str
    at: int
    emitted: int
    rendered: int
    rewritten: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """An answer as later prompts have it. `ids`: with the template's around it. `reasoning`: emitted tokens of it."""

    ids: tuple[int, ...]
    reasoning: int = 0
    difference: Difference | None = None


class Decoder(Protocol):
    """Turns token ids into text pieces, one piece an id. It holds bytes back until a character is whole."""

    def push(self, token: int) -> str:
        """Return the text that `token` completes, `""` within a character. Modifies the decoder."""
        ...

    def flush(self) -> str:
        """Return what is held back, unfinished bytes as U+FFFD. Nothing may be pushed after it."""
        ...


class Tokenizer(Protocol):
    """Text to ids and back, and the chat template as segments.

    A prompt is `head + segment* + cue`; an answer is `cue + emitted + tail` in the cache, and `shown` in later
    prompts. Segments always start at a special token, so no token spans a seam and
    `head(i) + segment(r1, t1) + … + cue()` equals the ids of rendering the whole at once.
    """

    template_hash: str

    def head(self, instructions: str | None, tools: str = "") -> tuple[int, ...]:
        """Return the ids that every prompt with these instructions begins with (BOS, system message).

        `tools`: a JSON list of what the model may call, "" for none.
        """
        ...

    def segment(self, role: str, text: str, calls: Sequence[tuple[str, str]] = ()) -> tuple[int, ...]:
        """Return the ids of one whole message. `role`: system, developer, user, assistant or tool (what a call gave).

        `calls`: of an answer, (name, arguments), which are JSON as the model wrote it.

        Special-token strings inside `text` are encoded as plain text.
        """
        ...

    def cue(self, thinking: bool | None = None) -> tuple[int, ...]:
        """Return the ids that ask the model for an answer (the generation prompt).

        `thinking`: see `Form`. Raises RequestRefused: the template always, or never, has the model think.
        """
        ...

    def tail(self, emitted: Sequence[int]) -> tuple[int, ...]:
        """Return the ids that close an answer: the end token if `emitted` lacks it, and what follows it."""
        ...

    def shown(self, emitted: Sequence[int], thinking: bool | None = None) -> Shown:
        """Return an answer as later prompts have it. `thinking`: as it was asked for.

        That is what was emitted, id by id, unless the template drops earlier reasoning: then what the template
        shows. Every other difference from the template is only told.
        """
        ...

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the ids of plain text; special-token strings are not interpreted."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` without special tokens."""
        ...

    def raw(self, token: int) -> bytes:
        """Return the bytes of one token, b"" of a special one. They may end, or begin, within a character."""
        ...

    def decoder(self, *, marks: bool = False) -> Decoder:
        """Return a fresh decoder that skips special tokens. `marks`: only those that end an answer."""
        ...
