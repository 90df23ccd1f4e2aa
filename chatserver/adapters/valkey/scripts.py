"""The Lua scripts: read once, called by digest.

Each `lua/<name>.lua` begins with its keys, arguments, result and guarantee.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files

Argument = str | bytes | int | float
Command = Sequence[Argument]
"""A command's name and arguments."""

_KNOWN: dict[str, Script] = {}


@dataclass(frozen=True, slots=True)
class Script:
    """A script and its digest."""

    name: str
    source: str
    digest: str

    def command(self, keys: Sequence[str], *args: Argument) -> Command:
        """Return the command that runs it by digest."""
        return ("EVALSHA", self.digest, len(keys), *keys, *args)


@cache
def script(name: str) -> Script:
    """Return the script in `lua/<name>.lua`."""
    source = files("chatserver.adapters.valkey").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
    digest = sha1(source.encode(), usedforsecurity=False).hexdigest()  # the protocol's name for a script
    return _KNOWN.setdefault(digest, Script(name, source, digest))


def with_source(command: Command) -> Command:
    """Return a command that ran a script by digest as one that brings the source along."""
    return ("EVAL", _KNOWN[str(command[1])].source, *command[2:])


def title(command: Command) -> str:
    """Return what an error message calls a command."""
    if command[0] in ("EVALSHA", "EVAL"):
        known = _KNOWN.get(str(command[1]))
        return known.name if known else "script"
    return str(command[0])
