"""The command line of `chatserver chat`; what it needs is imported when it runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HELP = "chat with a running server in the terminal"
DEFAULT_URL = "http://127.0.0.1:8000"
URL, TOKEN = "CHATSERVER_URL", "CHATSERVER_TOKEN"


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for. `message`: say this, print the answer and end; "": talk."""

    url: str
    key: str | None
    model: str | None
    conversation: str | None
    new: bool
    message: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `chatserver chat`."""
    add = parser.add_argument
    add("message", nargs="*", help="say this, print the answer and end; without it: talk")
    add(
        "--url",
        default=None,
        help=f"the server (default: {DEFAULT_URL}; or {URL}); its key is read from {TOKEN}",
    )
    add("--model", default=None, help="the model (default: the server's)")
    add("--new", action="store_true", help="begin a new conversation, not go on with the last one")
    add("--conversation", metavar="ID", default=None, help="go on with this conversation")


def run(chosen: Mapping[str, Any]) -> int:
    """Talk until the user leaves; return the exit code: 1 if the last thing that was asked for failed."""
    from chatserver.client import ClientError  # noqa: PLC0415 - quick start of the other commands
    from chatserver.terminal import program  # noqa: PLC0415

    wish = Wish(
        url=chosen["url"] or os.environ.get(URL) or DEFAULT_URL,
        key=os.environ.get(TOKEN) or None,
        model=chosen["model"],
        conversation=chosen["conversation"],
        new=chosen["new"],
        message=" ".join(chosen["message"]),
    )
    try:
        return program.run(wish)
    except (ClientError, ValueError) as error:
        print(f"chatserver: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
