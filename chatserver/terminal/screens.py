"""Where the chat is shown.

`Plain` is for pipes and dumb terminals: the answer's text as it is on stdout, notes on stderr.
"""

from __future__ import annotations

import sys
from typing import Protocol, TextIO


class Screen(Protocol):
    """Shows one thing after the other."""

    def note(self, text: str) -> None:
        """Say something about the chat."""
        ...

    def error(self, text: str) -> None:
        """Say what went wrong, in a line."""
        ...

    def said(self, text: str) -> None:
        """Show what the user said earlier."""
        ...

    def begin(self) -> None:
        """An answer begins: `status`, `think` and `write` follow, then `end`."""
        ...

    def status(self, text: str) -> None:
        """Say what is waited for, until the next call of anything."""
        ...

    def think(self, text: str) -> None:
        """Show more of the reasoning."""
        ...

    def write(self, text: str) -> None:
        """Show more of the answer."""
        ...

    def call(self, name: str, arguments: str) -> None:
        """Show that the model calls a tool, with what: JSON as it wrote it. Outside an answer, too."""
        ...

    def end(self, note: str = "") -> None:
        """The answer has ended, or is left; a note on it."""
        ...


class Plain:
    """No colours, no cursor: every character of the answers, and nothing else, goes to `out`."""

    def __init__(self, out: TextIO | None = None, notes: TextIO | None = None) -> None:
        """Write answers to `out` (stdout) and the rest to `notes` (stderr)."""
        self._out = out or sys.stdout
        self._notes = notes or sys.stderr
        self._open = False
        self._last_status = ""

    def note(self, text: str) -> None:
        """Say something about the chat."""
        print(text, file=self._notes, flush=True)

    def error(self, text: str) -> None:
        """Say what went wrong."""
        print(f"chatserver: {text}", file=self._notes, flush=True)

    def said(self, text: str) -> None:
        """Show what the user said earlier."""
        print(f"> {text}", file=self._out, flush=True)

    def begin(self) -> None:
        """Nothing to show yet."""
        self._open, self._last_status = False, ""

    def status(self, text: str) -> None:
        """Say it once, not at every change of a number."""
        kind = text.partition(" ")[0]
        if kind != self._last_status:
            self._last_status = kind
            self.note(f"({text})")

    def think(self, text: str) -> None:
        """Leave reasoning out."""

    def write(self, text: str) -> None:
        """Write it at once."""
        self._open = not text.endswith("\n")
        self._out.write(text)
        self._out.flush()

    def call(self, name: str, arguments: str) -> None:
        """Say it beside the answer."""
        self.note(f"(calls {name} {arguments})")

    def end(self, note: str = "") -> None:
        """End the last line. Figures are left out."""
        if self._open:
            print(file=self._out, flush=True)
        self._open = False
