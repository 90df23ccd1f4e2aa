"""Answers taken apart by SGLang's own parsers: its reasoning parsers, then its function-call parsers.

    text ── reasoning parser ──┬── reasoning
                               └── the rest ── function-call parser ──┬── text
                                                                      └── calls, their arguments bit by bit

Importing this module imports SGLang.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sglang.srt.entrypoints.openai.protocol import Tool, ToolChoice
from sglang.srt.function_call.function_call_parser import FunctionCallParser
from sglang.srt.function_call.json_array_parser import JsonArrayParser
from sglang.srt.parser.reasoning_parser import ReasoningParser

from engine.answers import Choice, Form, Piece, PieceKind
from engine.tagged_calls import TAGS, Said, TaggedCalls

_MOST_DRAINS = 1_000
"""Looks for calls that a parser still holds when the text has ended; each look gives a name or arguments."""


class SglangSplitter:
    """`engine.answers.Splitter` on SGLang's parsers. `reasoning`, `calls`: None where the answer can have none."""

    def __init__(self, reasoning: ReasoningParser | None, calls: _Calls | TaggedCalls | None) -> None:
        self._reasoning = reasoning
        self._calls = calls

    def push(self, text: str) -> list[Piece]:
        """Return what `text` adds."""
        return (
            self._split(*self._reasoning.parse_stream_chunk(text))
            if self._reasoning and text
            else self._rest(text)
        )

    def flush(self) -> list[Piece]:
        """Return what the parsers held back."""
        pieces = self._split(*self._reasoning.parse_stream_end()) if self._reasoning else []
        return pieces + (self._calls.flush() if self._calls else [])

    def _split(self, thought: str | None, rest: str | None) -> list[Piece]:
        return ([Piece(PieceKind.REASONING, thought)] if thought else []) + self._rest(rest or "")

    def _rest(self, text: str) -> list[Piece]:
        if self._calls is not None:
            return self._calls.push(text) if text else []
        return [Piece(PieceKind.TEXT, text)] if text else []


class _Calls:
    """Text and calls of one answer, where all of it goes through one parser."""

    def __init__(self, parser: FunctionCallParser | JsonArrayParser, tools: list[Tool]) -> None:
        self._parser = parser
        self._tools = tools
        self._said = Said()
        self._called = -1

    def push(self, text: str) -> list[Piece]:
        normal, items = self._parse(text)
        return self._said.text(normal) + self._items(items)

    def flush(self) -> list[Piece]:
        if isinstance(self._parser, JsonArrayParser):
            end = self._parser.finish(self._tools)
            pieces = self._said.text(end.normal_text) + self._items(end.calls)
        else:
            normal, items = self._parser.parse_stream_end()
            pieces = self._said.text(normal) + self._items(items)
        for _ in range(_MOST_DRAINS):
            if not (more := self.push("")):
                break
            pieces += more
        return pieces + self._unsent() + self._said.flush()

    def _parse(self, text: str) -> tuple[str, Sequence[Any]]:
        if isinstance(self._parser, JsonArrayParser):
            found = self._parser.parse_streaming_increment(text, self._tools)
            return found.normal_text, found.calls
        return self._parser.parse_stream_chunk(text)

    def _items(self, items: Sequence[Any]) -> list[Piece]:
        pieces = []
        for item in items:
            if item.name:
                self._called = max(self._called, item.tool_index)
                self._said.call()
            if item.name or item.parameters:
                pieces.append(Piece(PieceKind.CALL, item.parameters, item.tool_index, item.name or ""))
        return pieces

    def _unsent(self) -> list[Piece]:
        """Return the arguments that the parser knows of the last call and has not told, as SGLang's server does."""
        detector = self._parser if isinstance(self._parser, JsonArrayParser) else self._parser.detector
        known, sent = detector.prev_tool_call_arr, detector.streamed_args_for_tool
        if not 0 <= self._called < min(len(known), len(sent)):
            return []
        arguments = known[self._called].get("arguments")
        whole = arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)
        rest = whole.removeprefix(sent[self._called])
        if not rest or (rest == whole and sent[self._called]):
            return []
        return [Piece(PieceKind.CALL, rest, self._called)]


def splitter(
    form: Form, reasoning: str | None, forced: bool | None, tools: str | None
) -> SglangSplitter | None:
    """Return what takes an answer of this form apart, None if it is all text.

    `reasoning`, `tools`: SGLang's names of the parsers, None for none. `forced`: whether the prompt has begun the
    reasoning already, None = as the parser assumes.
    """
    thoughts = ReasoningParser(reasoning, force_reasoning=forced) if reasoning else None
    if not form.calls or tools is None:
        return SglangSplitter(thoughts, None) if thoughts else None
    return SglangSplitter(thoughts, _calls(form, tools))


def _calls(form: Form, tools: str) -> _Calls | TaggedCalls:
    declared, choice = tools_of(form), choice_of(form) if form.must_call else None

    def fresh() -> FunctionCallParser:
        return FunctionCallParser(declared, tools, tool_choice=choice)

    parser = fresh()
    if form.must_call and not parser.owns_tool_format():
        return _Calls(JsonArrayParser(), declared)
    return TaggedCalls(TAGS[tools], fresh) if tools in TAGS else _Calls(parser, declared)


def tools_of(form: Form) -> list[Tool]:
    """Return the tools in SGLang's form; of a named choice that one alone."""
    tools = [Tool(**tool) for tool in json.loads(form.tools)]
    if form.choice in set(Choice):
        return tools
    return [tool for tool in tools if tool.function.name == form.choice]


def choice_of(form: Form) -> Any:
    """Return the choice in SGLang's form."""
    if form.choice in set(Choice):
        return str(form.choice)
    return ToolChoice(function={"name": form.choice})  # pyright: ignore[reportArgumentType] — pydantic converts it
