"""The line in which messages are typed, by prompt_toolkit: history, completion of commands, several lines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from chatserver.terminal.words import COMMANDS

PROMPT = FormattedText([("bold ansigreen", "❯ ")])


def editor(history: Path | None) -> Callable[[str], Awaitable[str | None]]:
    """Return what asks for a message: with a text to begin with; None when the user leaves (Ctrl-D)."""
    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    session: PromptSession[str] = PromptSession(
        history=FileHistory(str(history)) if history else InMemoryHistory(),
        completer=WordCompleter(list(COMMANDS), sentence=True),
        complete_while_typing=False,
        key_bindings=keys,
        prompt_continuation="  ",
    )

    async def ask(beginning: str) -> str | None:
        while True:
            try:
                return await session.prompt_async(PROMPT, default=beginning)
            except KeyboardInterrupt:
                beginning = ""  # Ctrl-C throws away what was typed
            except EOFError:
                return None

    return ask
