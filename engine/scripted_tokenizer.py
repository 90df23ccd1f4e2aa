"""The scripted engine's tokenizer: whole words where it knows them, bytes for everything else.

    0-255      one byte
    256, 257   <|im_start|> and <|im_end|>, never made from text
    258-...    pieces: words with and without a space before them, and some Markdown

Any Unicode text survives encode and decode. Messages are laid out as in ChatML.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache

from engine.decoding_bytes import ByteDecoder
from engine.scripted_words import OPENERS, WORDS
from engine.token_contract import Decoder, Difference, Shown
from engine.tool_texts import output, with_calls, with_tools

START = 256
END = 257
_FIRST_PIECE = 258

MARKDOWN = ("\n\n", "\n- ", "## ", " **important**", " **note**", " `value`", " *really*", "```", "\n")
THINK, END_THINK = MARKS = ("<think>", "</think>")
"""What reasoning stands between; one token each, never made from text."""
_ROLES = ("system", "user", "assistant")
PIECES: tuple[str, ...] = tuple(
    dict.fromkeys(
        (*MARKDOWN, *_ROLES, *WORDS, *OPENERS, *(f" {word}" for word in (*WORDS, *OPENERS)), *MARKS)
    )
)
IDS: dict[str, int] = {piece: _FIRST_PIECE + i for i, piece in enumerate(PIECES)}
VOCABULARY = _FIRST_PIECE + len(PIECES)

_WORD = re.compile(r" ?[A-Za-z]+|\n\n|.", re.DOTALL)
_DEFAULT_SYSTEM = "You are a scripted assistant."
BYTES: tuple[bytes, ...] = (
    *(bytes((i,)) for i in range(256)),
    b"",
    b"",
    *(piece.encode() for piece in PIECES),
)


class ScriptedTokenizer:
    """`engine.token_contract.Tokenizer` of the scripted engine."""

    template_hash = hashlib.sha256("\0".join(PIECES).encode()).hexdigest()[:16]

    def head(self, instructions: str | None, tools: str = "") -> tuple[int, ...]:
        """Return the ids that every prompt with these instructions begins with."""
        text = _DEFAULT_SYSTEM if instructions is None else instructions
        return _head(with_tools(text, tools) if tools else text)

    def segment(self, role: str, text: str, calls: Sequence[tuple[str, str]] = ()) -> tuple[int, ...]:
        """Return the ids of one whole message. `calls`: (name, arguments) of an answer."""
        if role == "tool":
            role, text = "user", output(text)
        elif calls:
            text = with_calls(text, calls)
        name = "system" if role == "developer" else role
        return (*_opening(name), *self.encode(text), END, *_NEWLINE)

    def cue(self, thinking: bool | None = None) -> tuple[int, ...]:
        """Return the ids that ask for an answer; reasoning begins only if it is asked for."""
        return (*_opening("assistant"), IDS[THINK]) if thinking else _opening("assistant")

    def tail(self, emitted: Sequence[int]) -> tuple[int, ...]:
        """Return the ids that close an answer."""
        return _NEWLINE if emitted and emitted[-1] == END else (END, *_NEWLINE)

    def shown(self, emitted: Sequence[int], thinking: bool | None = None) -> Shown:
        """Return an answer as it was emitted, without its reasoning."""
        whole, end = (*self.cue(thinking), *emitted, *self.tail(emitted)), IDS[END_THINK]
        if not thinking:
            return Shown(whole)
        thought = emitted.index(end) + 1 if end in emitted else len(emitted)
        kept = emitted[thought:]
        ids = (*self.cue(), *kept, *self.tail(kept))
        at = len(self.cue())
        return Shown(ids, thought, Difference("reasoning", at, len(whole), len(ids), rewritten=True))

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the ids of plain text."""
        ids: list[int] = []
        for match in _WORD.finditer(text):
            piece = match.group()
            known = IDS.get(piece)
            if known is None:
                ids.extend(piece.encode("utf-8", "replace"))
            else:
                ids.append(known)
        return tuple(ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` without special tokens."""
        return b"".join([BYTES[i] for i in ids]).decode("utf-8", "replace")

    def raw(self, token: int) -> bytes:
        """Return the bytes of one token, b"" of a special one."""
        return BYTES[token]

    def decoder(self, *, marks: bool = False) -> Decoder:
        """Return a fresh decoder; its only marks are text."""
        return ByteDecoder(BYTES)


_NEWLINE = (IDS["\n"],)


@lru_cache(maxsize=256)  # as the real tokenizer keeps them
def _head(text: str) -> tuple[int, ...]:
    return ScriptedTokenizer().segment("system", text)


@lru_cache(maxsize=16)
def _opening(role: str) -> tuple[int, ...]:
    return (START, *ScriptedTokenizer().encode(f"{role}\n"))
