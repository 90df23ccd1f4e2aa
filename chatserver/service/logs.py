"""What a process logs: one line an event, on stderr, never a secret, and what repeats itself once a minute."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
HIDDEN = "[hidden]"
REPEAT = 60.0
"""Seconds in which the same warning is printed once."""
MOST = 256
"""Different warnings that are remembered."""
_PATTERNS = (
    (re.compile(r"\b(sk-[0-9a-f]{16}-)[\w-]+"), r"\1" + HIDDEN),
    (re.compile(r"(?i)\b(bearer\s+)[^\s\"',]+"), r"\1" + HIDDEN),
    (re.compile(r"(openai-insecure-api-key\.)[^\s\"',]+"), r"\1" + HIDDEN),
    (re.compile(r"(\"token\"\s*:\s*\")[^\"]*"), r"\1" + HIDDEN),
    (re.compile(r"(\w://)[^/\s@]*@"), r"\1" + HIDDEN + "@"),
)
_TALKATIVE = ("uvicorn", "websockets")
"""Loggers that print every header and frame at debug, cut in the middle, so that no pattern knows a key in them."""


class Redacting(logging.Formatter):
    """Formats a line, tracebacks included, without keys, passwords in URLs, or any of `secrets`."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        super().__init__(FORMAT)
        # the longest first: one may begin with another
        self._secrets = sorted(filter(None, secrets), key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        text = super().format(record)
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text


class Sparing(logging.Filter):
    """Drops a warning or error that was printed in the last REPEAT seconds; the next one says how many were dropped.

    What is away for an hour is tried again many times a second by many: the log says so without filling the disk.
    Tracebacks are never dropped.
    """

    def __init__(self) -> None:
        super().__init__()
        self._printed: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether to print it. Modifies the record if others like it were dropped."""
        if record.levelno < logging.WARNING or record.exc_info:
            return True
        text = record.getMessage()
        key = (record.name, text)
        at, dropped = self._printed.pop(key, (-REPEAT, 0))
        if 0 <= record.created - at < REPEAT:
            self._printed[key] = (at, dropped + 1)
            return False
        if dropped:
            record.msg, record.args = (
                f"{text} ({dropped} more like this in {record.created - at:.0f} s)",
                (),
            )
        self._printed[key] = (record.created, 0)
        if len(self._printed) > MOST:
            del self._printed[next(iter(self._printed))]
        return True


def begin(level: str, *, secrets: Sequence[str]) -> None:
    """Log to stderr from `level` on."""
    handler = logging.StreamHandler()
    handler.setFormatter(Redacting(secrets))
    handler.addFilter(Sparing())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.INFO, logging.getLogger().level))
