"""What the terminal remembers between its runs: the last conversation at each server, and what was typed."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

MAX_SERVERS = 50
MAX_HISTORY = 1 << 20
"""Bytes of the file of typed lines; when it is longer, its older half goes."""


def default_folder() -> Path:
    """Return $XDG_STATE_HOME/chatserver, or what stands for it."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "chatserver"


class Memory:
    """A folder that only its user may read. A memory that cannot be kept or read never stops a chat: see `problem`."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "chat.json"
        self._typed = folder / "typed"
        self.problem = ""
        """Why nothing is remembered, in a line; "" if it is."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            self.problem = f"nothing is remembered: {error}"

    def last(self, url: str) -> str | None:
        """Return the last conversation at a server."""
        found = self._read().get(url)
        return found["conversation"] if isinstance(found, dict) else None

    def remember(self, url: str, conversation_id: str | None) -> None:
        """Keep the last conversation at a server; None: forget it."""
        if self.last(url) == conversation_id:
            return
        servers = {name: value for name, value in self._read().items() if name != url}
        if conversation_id is not None:
            servers[url] = {"conversation": conversation_id, "at": int(time.time())}
        kept = dict(list(servers.items())[-MAX_SERVERS:])
        try:
            _replace(self._file, json.dumps({"servers": kept}, indent=1).encode())
        except OSError as error:
            self.problem = f"the conversation is not remembered: {error}"

    def typed(self) -> Path | None:
        """Return the file of what was typed, not too long; None if there can be none."""
        try:
            with contextlib.suppress(FileNotFoundError):
                text = self._typed.read_bytes()
                if len(text) > MAX_HISTORY:
                    # an entry begins with a line that begins with #
                    _replace(self._typed, b"\n#" + text[-MAX_HISTORY // 2 :].partition(b"\n#")[2])
            self._typed.touch(mode=0o600)
        except OSError:
            return None
        return self._typed

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._file.read_bytes()).get("servers")
        except (OSError, ValueError, AttributeError):
            return {}  # none yet, or not one of ours: it is written anew
        return found if isinstance(found, dict) else {}


def _replace(file: Path, text: bytes) -> None:
    """Write a file so that it is always whole, and only its owner's."""
    new = file.with_suffix(f".{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(text)
    new.replace(file)
