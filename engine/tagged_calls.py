"""Calls that stand between tags, one fresh parser of SGLang's for each.

    text <tag> {"name": …, "arguments": …} </tag> text        Hermes, Qwen
    text <begin> name <sep> {…} <end> text                     DeepSeek

SGLang's streaming parsers of these families lose what comes with a tag in one piece, never give back text that looks
like the beginning of a tag, and mix up calls that come in one piece. So the text is cut at the tags here, and a parser
sees nothing but one call. Importing this module imports SGLang.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sglang.srt.function_call.function_call_parser import FunctionCallParser

from engine.answers import Piece, PieceKind


@dataclass(frozen=True, slots=True)
class Tags:
    """A family's tags. `begin`, `end`: of one call; `around`: of all calls, they say nothing.

    `lead`: what the parser wants to see of `begin`. `sure`: whether `end` cannot be a part of the arguments.
    """

    begin: str
    end: str
    around: tuple[str, ...] = ()
    lead: str = ""
    sure: bool = False

    @property
    def all(self) -> tuple[str, ...]:
        """Every tag."""
        return (self.begin, self.end, *self.around)


_HERMES = Tags("<tool_call>", "</tool_call>", lead="<tool_call>\n")
_DEEPSEEK = Tags(
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
    "<｜tool▁call▁begin｜>",
    sure=True,
)
TAGS: Mapping[str, Tags] = {
    "deepseekv3": _DEEPSEEK,
    "deepseekv31": _DEEPSEEK,
    "hermes": _HERMES,
    "qwen": _HERMES,
    "qwen25": _HERMES,
}
"""By SGLang's name of the parser."""


class Said:
    """An answer's text beside its calls. White space that surrounds calls is no text."""

    def __init__(self) -> None:
        self._space = ""
        self._speaks = False
        self._called = False

    def text(self, text: str | None) -> list[Piece]:
        """Return what `text` adds. Modifies this."""
        text = self._space + (text or "")
        blank = not self._speaks and not text.strip()
        self._space = text if blank and not self._called else ""
        if blank or not text:
            return []
        self._speaks = True
        return [Piece(PieceKind.TEXT, text)]

    def call(self) -> None:
        """Note that a call begins."""
        self._called, self._speaks, self._space = True, False, ""

    def flush(self) -> list[Piece]:
        """Return white space that is all there was."""
        return [Piece(PieceKind.TEXT, self._space)] if self._space else []


class TaggedCalls:
    """Text and calls of one answer. `fresh`: makes a parser of one call."""

    def __init__(self, tags: Tags, fresh: Callable[[], FunctionCallParser]) -> None:
        self._tags = tags
        self._fresh = fresh
        self._cut = re.compile(f"({'|'.join(map(re.escape, tags.all))})")
        self._said = Said()
        self._held = ""
        self._parser: FunctionCallParser | None = None
        self._raw = ""
        self._call = -1
        self._named = False
        self._argued = False

    def push(self, text: str) -> list[Piece]:
        """Return what `text` adds."""
        text = self._held + text
        keep = len(text) - max(_begun(text, tag) for tag in self._tags.all)
        self._held = text[keep:]
        return self._pieces(text[:keep])

    def flush(self) -> list[Piece]:
        """Return what was held back. A call that was cut off before its name is told to no one."""
        held, self._held = self._held, ""
        return self._pieces(held) + self._said.flush()

    def _pieces(self, text: str) -> list[Piece]:
        return [piece for part in self._cut.split(text) if part for piece in self._part(part)]

    def _part(self, part: str) -> list[Piece]:
        tags = self._tags
        if self._parser is not None and not (tags.sure and part in tags.all and part != tags.end):
            return self._end() if part == tags.end and self._ends() else self._more(part)
        if part == tags.begin:
            self._parser, self._raw, self._named, self._argued = self._fresh(), "", False, False
            self._parser.parse_stream_chunk(tags.lead)
            return []
        self._parser = None
        return [] if part in tags.all else self._said.text(part)

    def _more(self, part: str) -> list[Piece]:
        """Let the parser see more of a call. It tells the name first, and the arguments when it is asked again."""
        assert self._parser is not None
        part = part if self._raw else part.lstrip()
        if not part:
            return []
        self._raw += part
        _, items = self._parser.parse_stream_chunk(part)
        if any(item.name for item in items):
            items = [*items, *self._parser.parse_stream_chunk("")[1]]
        pieces = []
        for item in items:
            if item.name:
                self._named, self._call = True, self._call + 1
                self._said.call()
            self._argued |= bool(item.parameters)
            if item.name or item.parameters:
                pieces.append(Piece(PieceKind.CALL, item.parameters, self._call, item.name or ""))
        if self._named and not self._parser.detector.current_tool_name_sent:
            self._parser = None  # it is whole: the parser waits for the next
        return pieces

    def _ends(self) -> bool:
        """Whether the tag ends the call, and is not a part of its arguments."""
        return self._tags.sure or not self._named or _is_json(self._raw)

    def _end(self) -> list[Piece]:
        """End a call that the parser does not think whole: one without arguments, or none of our tools."""
        self._parser = None
        if not self._named:
            return self._said.text(f"{self._tags.begin}{self._raw}{self._tags.end}")
        return [] if self._argued else [Piece(PieceKind.CALL, "{}", self._call)]


def _begun(text: str, tag: str) -> int:
    """Return the length of the longest end of `text` that begins `tag`."""
    return next((n for n in range(min(len(tag) - 1, len(text)), 0, -1) if text.endswith(tag[:n])), 0)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True
