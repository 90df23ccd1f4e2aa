"""The chat on a terminal: Markdown that is painted as it comes.

    settled blocks      printed once, they scroll away like any output
    the last block      painted again as it grows; of a long one only its end, until it is whole
    status              one line, while something is waited for

At most 10 times a second, and less often where painting takes long: a slow link gets fewer pictures, not old ones.
"""

from __future__ import annotations

import asyncio
import time

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment
from rich.text import Text

from chatserver.terminal.growing import Growing
from chatserver.terminal.words import harmless

GAP = 0.1
"""Seconds between two pictures, at least."""
SHARE = 5
"""Painting may take one part in so many of the time."""
WIDEST = 100
MOST_LINES = 24
"""Lines of a block that grows, at most: what every picture costs."""
THOUGHTS = 400
"""Characters of the reasoning that are shown while it comes."""


class Painted:
    """Shows the chat on a terminal, through rich."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=False)
        self._live: Live | None = None
        self._text = Growing()
        self._thoughts = ""
        self._status = ""
        self._gap = GAP
        self._painted = 0.0
        self._due: asyncio.TimerHandle | None = None

    def note(self, text: str) -> None:
        """Say something about the chat."""
        self.console.print(Text(harmless(text), style="dim"))

    def error(self, text: str) -> None:
        """Say what went wrong."""
        self.console.print(Text(harmless(text), style="red"))

    def said(self, text: str) -> None:
        """Show what the user said earlier."""
        self.console.print(Text.assemble(("❯ ", "bold green"), harmless(text)))

    def begin(self) -> None:
        """Open the picture that grows."""
        self._text, self._thoughts, self._status = Growing(), "", ""
        self._live = Live(console=self.console, auto_refresh=False, transient=True, vertical_overflow="crop")
        self._live.start()

    def status(self, text: str) -> None:
        """Show one line under the answer."""
        self._status = text
        self._soon()

    def think(self, text: str) -> None:
        """Show the end of the reasoning while it comes."""
        self._status, self._thoughts = "", (self._thoughts + harmless(text))[-THOUGHTS:]
        self._soon()

    def write(self, text: str) -> None:
        """Paint it soon."""
        self._status = self._thoughts = ""
        self._text.add(harmless(text))
        self._soon()

    def call(self, name: str, arguments: str) -> None:
        """Print it behind the text that came before it."""
        before = self._text.settle() + self._text.close()
        self._text, self._thoughts, self._status = Growing(), "", ""
        if self._live is not None:
            self._live.update(Text(""))
        if before.strip():
            self._print(before)
        shown = (("→ ", "bold cyan"), (harmless(name), "bold"), " ", (harmless(arguments), "dim"))
        self.console.print(Text.assemble(*shown))

    def end(self, note: str = "") -> None:
        """Print what is left, and the note."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._live is not None:
            self._live.stop()
            self._live = None
        rest = self._text.settle() + self._text.close()
        if rest.strip():
            self._print(rest)
        self.console.print(Text(note, style="dim"))

    def _soon(self) -> None:
        wait = self._painted + self._gap - time.monotonic()
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(max(wait, 0), self._paint)

    def _paint(self) -> None:
        self._due = None
        if self._live is None:
            return
        began = time.monotonic()
        settled = self._text.settle()
        if settled.strip():
            self._live.update(Text(""))
            self._print(settled)
        self._live.update(self._picture(), refresh=True)
        self._painted = time.monotonic()
        self._gap = max(GAP, SHARE * (self._painted - began))

    def _print(self, text: str) -> None:
        self.console.print(_markdown(text), width=min(self.console.width, WIDEST))
        self.console.print()

    def _picture(self) -> Group:
        parts: list[object] = []
        if self._text.rest.strip():
            parts.append(_End(self._text.rest))
        if self._thoughts:
            parts.append(Text(self._thoughts, style="dim italic"))
        if self._status:
            parts.append(Text(harmless(self._status), style="dim"))
        return Group(*parts)  # type: ignore[arg-type]


class _End:
    """The last lines of a block of Markdown."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = max(3, min(MOST_LINES, console.height - 4))
        width = min(options.max_width, WIDEST)
        # far more than fits is not even laid out; code stays code
        text = self._text[-height * width * 2 :]
        first = self._text.partition("\n")[0]
        if len(text) < len(self._text) and first.startswith(("```", "~~~")):
            text = f"{first}\n{text}"
        lines = console.render_lines(_markdown(text), options.update(width=width, height=None), pad=False)
        for line in lines[-height:]:
            yield from line
            yield Segment.line()


def _markdown(text: str) -> Markdown:
    # links are shown with their addresses: a name alone could lie
    return Markdown(text, code_theme="ansi_dark", hyperlinks=False)
