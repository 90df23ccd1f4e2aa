"""The scripted engine's answers taken apart: marks that are whole tokens, calls in Hermes' words."""

from __future__ import annotations

import json

from engine.answers import Form, Piece, PieceKind
from engine.scripted_tokenizer import END_THINK, THINK

_CALL, _END_CALL = "<tool_call>", "</tool_call>"
_ARGUMENTS = '"arguments": '


class ScriptedSplitter:
    """`engine.answers.Splitter` for what the scripted engine writes."""

    def __init__(self, form: Form) -> None:
        self._thinks = bool(form.thinking)
        self._calls = form.calls
        self._call = -1
        self._inside = False
        self._sent = False
        self._held = ""

    def push(self, text: str) -> list[Piece]:
        """Return what `text` adds."""
        if text in (THINK, END_THINK):
            self._thinks = text == THINK
            return []
        if self._thinks:
            return [Piece(PieceKind.REASONING, text)] if text else []
        self._held += text
        pieces: list[Piece] = []
        while more := self._step():
            pieces += more
        return [piece for piece in pieces if piece.text or piece.name]

    def flush(self) -> list[Piece]:
        """Return what was held back."""
        text, self._held = self._held, ""
        if self._inside:
            return [Piece(PieceKind.CALL, text, self._call)] if self._sent and text else []
        return [Piece(PieceKind.TEXT, text)] if text.strip() or (text and self._call < 0) else []

    def _step(self) -> list[Piece]:
        if self._inside:
            return self._in_call()
        at = self._held.find(_CALL) if self._calls else -1
        if at >= 0:
            said, self._held = self._held[:at], self._held[at + len(_CALL) :]
            self._inside, self._sent, self._call = True, False, self._call + 1
            return [Piece(PieceKind.TEXT, said if said.strip() else "")]
        waits = _overlap(self._held, _CALL) if self._calls else 0
        if self._calls and not self._held[: len(self._held) - waits].strip():
            return []
        said, self._held = self._held[: len(self._held) - waits], self._held[len(self._held) - waits :]
        return [Piece(PieceKind.TEXT, said)] if said else []

    def _in_call(self) -> list[Piece]:
        if not self._sent:
            before, found, rest = self._held.partition(_ARGUMENTS)
            if not found:
                return []
            self._sent, self._held = True, rest
            name = json.loads(before.strip().rstrip(",") + "}")["name"]
            return [Piece(PieceKind.CALL, "", self._call, name)]
        end = "}\n" + _END_CALL
        at = self._held.find(end)
        if at >= 0:
            rest, self._held = self._held[:at], self._held[at + len(end) :]
            self._inside = False
            return [Piece(PieceKind.CALL, rest, self._call)]
        keep = len(self._held) - _overlap(self._held, end)
        said, self._held = self._held[:keep], self._held[keep:]
        return [Piece(PieceKind.CALL, said, self._call)] if said else []


def _overlap(text: str, mark: str) -> int:
    """Return the length of the longest end of `text` that begins `mark`."""
    return next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:n])), 0)
