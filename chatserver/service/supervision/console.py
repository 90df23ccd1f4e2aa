"""What the supervisor shows: lasting lines, lines of its children, and one status line on a terminal.

store ready (0.1 s)
Chat at http://127.0.0.1:8000/ (the model is still loading)
⠙ engine: preparing model [████████·········] 43 %       ← redrawn in place, on a terminal only
engine | warning: …                                      ← what a child printed
"""

from __future__ import annotations

import re
import shutil
from typing import TextIO

FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
BAR = 20
"""Characters of a progress bar."""

_PERCENT = re.compile(r"(\d{1,3})(?:\.\d+)? ?%")
_DIGITS = re.compile(r"\d+")


class Console:
    """Writes to one stream. On a terminal the last line is live; elsewhere a change of status is a line.

    A stream that nobody reads any more is given up silently: the server must outlive its terminal.
    """

    def __init__(self, out: TextIO, *, live: bool | None = None) -> None:
        self._out: TextIO | None = out
        self._live = out.isatty() if live is None else live
        self._statuses: dict[str, str] = {}
        self._printed: dict[str, str] = {}
        self._frame = 0

    def line(self, text: str) -> None:
        """Print a lasting line."""
        self._write(f"{self._erase()}{text}\n")
        self._redraw()

    def headline(self, text: str) -> None:
        """Print a lasting line that must not be overlooked."""
        self.line(f"\n  \x1b[1m{text}\x1b[0m\n" if self._live else text)

    def child(self, role: str, text: str) -> None:
        """Print what a child said."""
        self.line(f"{role:<6} | {text}")

    def status(self, role: str, text: str) -> None:
        """Show what a role is doing now."""
        self._statuses[role] = text
        if self._live:
            self._redraw()
        elif self._printed.get(role) != (gist := _gist(text)):
            self._printed[role] = gist
            self.line(f"{role}: {text}")

    def settle(self, role: str) -> None:
        """Forget what a role is doing: it has arrived, or is gone."""
        self._statuses.pop(role, None)
        self._printed.pop(role, None)
        self._redraw()

    def tick(self) -> None:
        """Turn the spinner by one step."""
        self._frame += 1
        self._redraw()

    def close(self) -> None:
        """Leave the terminal on an empty line."""
        self._statuses.clear()
        self._redraw()

    def _redraw(self) -> None:
        if not self._live:
            return
        text = ", ".join(f"{role}: {_with_bar(text)}" for role, text in self._statuses.items())
        if text:
            width = shutil.get_terminal_size().columns
            text = f"{FRAMES[self._frame % len(FRAMES)]} {text}"[: width - 1]
        self._write(self._erase() + text)

    def _erase(self) -> str:
        return "\r\x1b[2K" if self._live else ""

    def _write(self, text: str) -> None:
        if self._out is None:
            return
        try:
            self._out.write(text)
            self._out.flush()
        except (OSError, ValueError):  # a closed pipe, a terminal that hung up, a closed file
            self._out = None


def _with_bar(text: str) -> str:
    match = _PERCENT.search(text)
    if match is None:
        return text
    full = min(100, int(match[1])) * BAR // 100
    return f"{text[: match.start()]}[{'█' * full}{'·' * (BAR - full)}] {text[match.start() :]}"


def _gist(text: str) -> str:
    """Return `text` less the figures that change all the time; of a percentage the tens stay."""
    match = _PERCENT.search(text)
    tens = f" {min(100, int(match[1])) // 10}" if match else ""
    return _DIGITS.sub("#", text) + tens
