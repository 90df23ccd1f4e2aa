"""An earlier answer with calls, as the chat template shows it.

Templates differ in what they want of the arguments: some put them down as they are (DeepSeek's), others turn them into
JSON themselves (Qwen's, Llama's). Which it is, is found out by asking for one known call.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from engine.rendering import Render, harmless

Call = tuple[str, str]
"""(name, arguments), which are JSON as the model wrote it."""

_MARK = "\u2042text\u2042"
_PROBE = {"probe": "known"}


class EarlierCalls:
    """Shows calls in the words of one template.

    `specials`: strings of special tokens. `before`: what a user's message "-" is in a prompt, with the head.
    """

    def __init__(self, render: Render, specials: Sequence[str], before: str) -> None:
        self._render = render
        self._specials = specials
        self._before = before
        self._as_values = self._shows_probe(True)
        self.known = self._as_values or self._shows_probe(False)
        """Whether the template has words for calls."""

    def around(self, text: str, calls: Sequence[Call]) -> tuple[str, str] | None:
        """Return what stands before and behind an answer's text, None if the template does not show it so."""
        shown = self._shown(_MARK if text else "", calls, self._as_values)
        if shown is None or (text and _MARK not in shown):
            return None
        before, _, after = shown.partition(_MARK) if text else (shown, "", "")
        return before, after

    def _shows_probe(self, as_values: bool) -> bool:
        shown = self._shown(_MARK, [("probe", json.dumps(_PROBE))], as_values) or ""
        return "probe" in shown and "known" in shown and repr(_PROBE) not in shown

    def _shown(self, text: str, calls: Sequence[Call], as_values: bool) -> str | None:
        listed = [
            {
                "id": f"call_{index}",
                "type": "function",
                "function": {"name": name, "arguments": self._arguments(arguments, as_values)},
            }
            for index, (name, arguments) in enumerate(calls)
        ]
        contents: tuple[str | None, ...] = (text,) if text else ("", None)
        for content in contents:
            answer: dict[str, Any] = {"role": "assistant", "content": content, "tool_calls": listed}
            whole = self._render([("user", "-"), answer], False)
            if whole is not None and whole.startswith(self._before):
                return whole.removeprefix(self._before)
        return None

    def _arguments(self, arguments: str, as_values: bool) -> Any:
        if as_values:
            try:
                return json.loads(arguments or "{}")
            except json.JSONDecodeError:  # an answer that was cut off in the middle of them
                return arguments
        return harmless(arguments or "{}", self._specials)
