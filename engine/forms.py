"""The forms that one model's answers can have: which of SGLang's parsers read them.

A profile names the parsers (`reasoning_parser`, `tool_call_parser` in its [sglang] table), or SGLang recognises them by
the chat template. Importing this module imports SGLang.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sglang.srt.parser.template_detection import (
    detect_reasoning_parser,
    detect_reasoning_pattern,
    detect_tool_call_parser,
)

from engine import grammars, splitting, tool_texts
from engine.answers import Form, Splitter
from engine.grammar_state import EMITTED
from engine.template import REASONING
from engine.tokenizer import HubTokenizer

_UNKNOWN = (None, "", "auto")


class Forms:
    """Knows the parsers of one model. `arguments`: of SGLang, which may name them."""

    def __init__(self, tokenizer: HubTokenizer, arguments: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        source, vocabulary = tokenizer.template_source, _Vocabulary(tokenizer)
        always, pattern = detect_reasoning_pattern(source)
        found = detect_reasoning_parser(source, vocabulary, pattern, always)
        self.reasoning = _chosen(arguments, "reasoning_parser") or (found if tokenizer.reasons else None)
        """SGLang's name of the parser of reasoning, None if the model does not reason."""
        if self.reasoning is None and tokenizer.reasons:
            self.reasoning = "qwen3"  # the marks that most models use
        self.tools = _chosen(arguments, "tool_call_parser")
        """SGLang's name of the parser of calls, None if there is none for the words of the template."""
        if self.tools is None and tokenizer.shows_tools:
            self.tools = detect_tool_call_parser(source, vocabulary, pattern, always)
        elif self.tools is None:
            self.tools = tool_texts.PARSER
        self._read: dict[bool | None, tuple[str | None, bool | None]] = {}

    def splitter(self, form: Form) -> Splitter | None:
        """Return what takes an answer of this form apart, None if it is all text. Raises RequestRefused."""
        grammars.check(form, self.tools)
        return splitting.splitter(form, *self._cue(form.thinking), self.tools)

    def sampling(self, form: Form, emitted: int) -> dict[str, Any]:
        """Return SGLang's sampling parameters for the form. `emitted`: tokens of the answer that end the prompt."""
        found: dict[str, Any] = grammars.constraint(form, self.tools)
        return found | {"custom_params": {EMITTED: emitted}} if found and emitted else found

    def thinks(self, form: Form) -> bool:
        """Whether a grammar has to wait for the end of the reasoning."""
        parser, begun = self._cue(form.thinking)
        return bool(begun) and parser is not None

    def _cue(self, thinking: bool | None) -> tuple[str | None, bool | None]:
        """Return the parser of the reasoning, and whether the prompt ends with the mark that begins it.

        None for the latter: the parser knows better.
        """
        if thinking not in self._read:
            cue = self._tokenizer.opens_with(thinking).rstrip()
            begun = True if any(cue.endswith(start) for start, _ in REASONING) else None
            closed = any(cue.endswith(end) for _, end in REASONING)
            parser = None if closed or (thinking is False and not begun) else self.reasoning
            self._read[thinking] = parser, begun
        return self._read[thinking]


class _Vocabulary:
    """What SGLang looks at of a tokenizer to recognise a template."""

    def __init__(self, tokenizer: HubTokenizer) -> None:
        self.get_vocab = tokenizer.vocabulary


def _chosen(arguments: Mapping[str, Any], name: str) -> str | None:
    value = arguments.get(name)
    return None if value in _UNKNOWN else value
