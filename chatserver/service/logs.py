"""What a process logs: one line an event, on stderr, and never a secret."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
HIDDEN = "[hidden]"
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


def begin(level: str, *, secrets: Sequence[str]) -> None:
    """Log to stderr from `level` on."""
    handler = logging.StreamHandler()
    handler.setFormatter(Redacting(secrets))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.INFO, logging.getLogger().level))
