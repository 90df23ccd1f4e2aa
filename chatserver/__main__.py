"""The command line: `chatserver serve`, or one role at a time.

Nothing heavy is imported before the command is known, so that `--version` and a mistyped option answer
at once. Every error is one line on stderr, `chatserver: <what to do>`; the exit code is 2 for a wrong
setting, 3 for what a restart cannot mend, 1 for the rest.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from chatserver.errors import ChatServerError, StartupError
from chatserver.service import logs
from chatserver.service.operation import capacity, operator_arguments, random_model
from chatserver.settings import Settings, options, read
from chatserver.terminal import command as chat

COMMANDS = {
    "serve": "run everything on this machine: store, engine and web, restarted when they die",
    "web": "run only the web role: HTTP, SSE, WebSocket and the page",
    "engine": "run only the engine role: the model",
    "store": "run only the embedded store",
    "replay": "send the ids of a response to the running server again, and compare the answers",
    "doctor": "say what this machine lacks, and what to do about it",
}
TOOLS = {"chat": chat, "plan": capacity, "random-model": random_model}
"""Commands that need no settings; each brings its own options."""
OPERATORS = {"keys": operator_arguments.KEYS_HELP, "usage": operator_arguments.USAGE_HELP}
"""Commands that only need the store."""
INTERRUPTED, UNREAD = 130, 141
"""Exit codes, as of a program that SIGINT or SIGPIPE ended."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        code = _command(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # who read has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is written at exit
        return UNREAD
    return code


def _command(arguments: Sequence[str] | None) -> int:
    parser = _parser()
    chosen = vars(parser.parse_args(arguments))
    command = chosen.pop("command")
    try:
        if command in TOOLS:
            return TOOLS[command].run(chosen)
        if command in OPERATORS:
            return import_module("chatserver.app.operator").run(command, chosen)
        start_engine = chosen.pop("start_engine", False)
        response_id = chosen.pop("response_id", "")
        settings = read(**chosen)
        if command == "doctor":
            return _examine(settings, start_engine)
        _run(command, settings, response_id)
    except ChatServerError as error:
        return _fail(error.message, error.exit_code if isinstance(error, StartupError) else 1)
    except ModuleNotFoundError as error:
        name = (error.name or "a package").partition(".")[0]
        if name in ("chatserver", "engine"):
            raise  # our own mistake: the traceback says where
        return _fail(f"{name} is not installed; run: make setup", 3)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _run(command: str, settings: Settings, response_id: str = "") -> None:
    # on stderr, which the supervisor keeps in the role's log
    logs.begin(settings.log_level, secrets=[key for _, key in settings.api_keys])
    module = import_module(f"chatserver.app.{command}")
    module.run(settings, *([response_id] if command == "replay" else []))


def _examine(settings: Settings, start_engine: bool) -> int:
    from chatserver.service.operation import doctor  # noqa: PLC0415 - see the module

    return doctor.run(settings, start_engine=start_engine)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, in place of the whole usage."""
        raise SystemExit(_fail(f"{message}; see {self.prog} --help", 2))


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version  # noqa: PLC0415 - only here, and not quick

        print(f"chatserver {version('chatserver')}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="chatserver", description="A streaming chat server.", allow_abbrev=False)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for name, help_ in COMMANDS.items():
        command = commands.add_parser(name, help=help_, description=help_, allow_abbrev=False)
        if name == "replay":
            command.add_argument("response_id", help="id of the response, resp_…")
        _add_settings(command)
        if name == "doctor":
            command.add_argument(
                "--engine", dest="start_engine", action="store_true", help="also start the engine"
            )
    for name, tool in TOOLS.items():
        tool.add_arguments(
            commands.add_parser(name, help=tool.HELP, description=tool.HELP, allow_abbrev=False)
        )
    for name, help_ in OPERATORS.items():
        command = commands.add_parser(name, help=help_, description=help_, allow_abbrev=False)
        operator_arguments.add(command, name, _add_store_settings)
    return parser


def _add_store_settings(command: argparse.ArgumentParser) -> None:
    _add_settings(command, "data_dir", "redis_url")


def _add_settings(command: argparse.ArgumentParser, *names: str) -> None:
    """Add the settings of those names, or all."""
    for option in options():
        if names and option.name not in names:
            continue
        default = f" (default: {option.default})" if option.default else ""
        text = f"{option.expected}{default}; or {option.variable}".replace("%", "%%")
        command.add_argument(option.flag, dest=option.name, metavar=option.name.upper(), help=text)


def _fail(message: str, code: int) -> int:
    print(f"chatserver: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
