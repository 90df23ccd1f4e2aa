"""Runs the chat: typed lines in, answers out, and Ctrl-C, which stops the answer and never the program."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable

from chatserver.client import Answer, ClientError, KeyRefused, Options, Unreachable, connect
from chatserver.terminal.command import URL, Wish
from chatserver.terminal.keyboard import Lines, listening
from chatserver.terminal.memory import Memory, default_folder
from chatserver.terminal.screens import Plain, Screen
from chatserver.terminal.talk import Talk
from chatserver.terminal.words import COMMANDS, help_text

FIRST = Options(concurrency=1, patience=5, connect_timeout=5)
"""How long a server is looked for that may not run at all."""
LATER = Options(concurrency=1, patience=3600)
"""How long one is waited for that ran: its user sees it, and may leave."""
INTERRUPTED = 130
MAX_AHEAD = 100_000
"""Characters that may be typed ahead while an answer is written."""

Typing = Callable[[str], Awaitable[str | None]]
"""Ask for the next message, with a text to begin with; None: there is none any more."""


def run(wish: Wish) -> int:
    """Talk, and return the exit code. Raises ClientError, ValueError."""
    with contextlib.suppress(KeyboardInterrupt):
        return asyncio.run(_run(wish))
    return INTERRUPTED


async def _run(wish: Wish) -> int:
    models = await _served(wish)
    memory = Memory(default_folder())
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    screen, typing = _terminal(memory) if on_terminal and not wish.message else _pipe()
    async with connect(wish.url, wish.key, LATER) as client:
        talk = Talk(client, screen, memory, wish.url, wish.model)
        program = Program(talk, screen, typing, on_terminal=on_terminal)
        if wish.message:
            return await program.one(wish)
        if on_terminal:
            screen.note(f"{wish.model or ', '.join(models)} at {wish.url} · /help")
        if memory.problem:
            screen.note(memory.problem)
        return await program.talk(wish)


async def _served(wish: Wish) -> list[str]:
    """Return the models of the server. Raises ClientError: that there is none, too, and what to do then."""
    try:
        async with connect(wish.url, wish.key, FIRST) as client:
            return await client.models()
    except Unreachable as error:
        advice = f"start one with `chatserver serve`, or name it with --url or {URL}"
        raise Unreachable(f"no server at {wish.url}: {error}; {advice}") from error


class Program:
    """One run of the chat."""

    def __init__(self, talk: Talk, screen: Screen, typing: Typing, *, on_terminal: bool) -> None:
        self._talk = talk
        self._screen = screen
        self._typing = typing
        self._on_terminal = on_terminal
        self._ahead = ""
        self._failed = False

    async def one(self, wish: Wish) -> int:
        """Say one thing and end."""
        await self._begin(wish, resume=wish.conversation is not None)
        await self._guarded(self._answer(self._talk.say(wish.message)))
        return int(self._failed)

    async def talk(self, wish: Wish) -> int:
        """Talk until there is nothing more to say."""
        await self._guarded(self._begin(wish, resume=self._on_terminal))
        while True:
            ahead, self._ahead = self._ahead, ""
            line = await self._typing(ahead)
            if line is None or line.strip() == "/quit":
                return int(self._failed)
            if line.strip():
                await self._guarded(self._do(line))

    async def _begin(self, wish: Wish, *, resume: bool) -> None:
        """Go on with the conversation that was asked for; at a terminal, with the last one."""
        answer = None
        if wish.conversation is not None:
            answer = await self._talk.resume(wish.conversation)
        elif resume and not wish.new:
            answer = await self._talk.resume_last()
        if answer is not None:
            await self._answer(answer)

    async def _do(self, line: str) -> None:
        word, _, rest = line.strip().partition(" ")
        if not word.startswith("/"):
            return await self._answer(self._talk.say(line))
        simple: dict[str, Callable[[], Awaitable[None]]] = {
            "/stats": self._talk.stats,
            "/history": self._talk.history,
        }
        if word in simple:
            await simple[word]()
        elif word == "/regenerate":
            await self._maybe(await self._talk.again())
        elif word == "/resume":
            found = await self._talk.conversation_named(rest.strip())
            await self._maybe(await self._talk.resume(found) if found else None)
        elif word == "/new":
            self._talk.new()
        elif word == "/stop":
            self._screen.note("There is no answer to stop.")
        else:
            if word != "/help":
                self._screen.error(f"{word}: expected one of {' '.join(COMMANDS)}")
            self._screen.note(help_text())
        return None

    async def _maybe(self, answer: Answer | None) -> None:
        if answer is not None:
            await self._answer(answer)

    async def _guarded(self, work: Awaitable[None]) -> None:
        """Say what went wrong in a line and go on; a key that is refused ends the program."""
        self._failed = False
        try:
            await work
            self._failed = self._talk.failed
        except KeyRefused:
            raise
        except ClientError as error:
            self._failed = True
            self._screen.error(" ".join(str(error).split()))

    async def _answer(self, answer: Answer) -> None:
        """Show an answer. Ctrl-C and `/stop` stop it; a second time they leave it."""
        reading = asyncio.create_task(self._talk.show(answer))
        stop = _Stop(answer, reading, self._screen)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, stop)
        try:
            async with (
                listening(lambda line: self._typed(line, stop))
                if self._on_terminal
                else contextlib.nullcontext()
            ):
                await asyncio.wait({reading})
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            stop.close()
            reading.cancel()
        if not reading.cancelled():
            reading.result()

    def _typed(self, line: str, stop: _Stop) -> None:
        if line.strip() == "/stop":
            stop()
        elif len(self._ahead) + len(line) < MAX_AHEAD:
            self._ahead += f"\n{line}" if self._ahead else line


class _Stop:
    """Call it once to stop an answer, once more to leave it."""

    def __init__(self, answer: Answer, reading: asyncio.Task[None], screen: Screen) -> None:
        self._answer = answer
        self._reading = reading
        self._screen = screen
        self._stopping: asyncio.Task[None] | None = None

    def __call__(self) -> None:
        """Stop, or leave."""
        if self._stopping is not None or self._answer.id is None:
            self._reading.cancel()
            return
        self._screen.status("stopping; once more leaves it")
        self._stopping = asyncio.create_task(self._stop())

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._stopping is not None:
            self._stopping.cancel()

    async def _stop(self) -> None:
        try:
            await self._answer.stop()
        except ClientError as error:
            self._screen.status(f"it could not be stopped: {error}")


def _pipe() -> tuple[Screen, Typing]:
    lines = Lines()

    async def typing(_: str) -> str | None:
        return await lines.next()

    return Plain(), typing


def _terminal(memory: Memory) -> tuple[Screen, Typing]:
    from chatserver.terminal.editing import editor  # noqa: PLC0415 - pipes do not need it
    from chatserver.terminal.painted import Painted  # noqa: PLC0415

    return Painted(), editor(memory.typed())
