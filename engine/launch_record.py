"""What the schedulers say when they fail, kept for the process that started them.

A scheduler that cannot start logs why and dies; its parent only learns that it died. Between `recorded` in the
parent and `record` in each scheduler lies one temporary file, named by an environment variable.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "ENGINE_LAUNCH_RECORD"
_LOGGER = "sglang.srt.managers.scheduler"
_MOST = 64_000
"""Bytes of the record that are read: the end, where the reason is."""


def record() -> None:
    """In a scheduler process: also write its errors where the parent looks. Before SGLang sets up its logging."""
    path = os.environ.get(VARIABLE)
    if path is None:
        return
    handler = logging.FileHandler(path)  # opened now: after the start the file has no name any more
    handler.setLevel(logging.ERROR)
    logging.getLogger(_LOGGER).addHandler(handler)


@contextmanager
def recorded() -> Iterator[Callable[[], str]]:
    """Have schedulers that start within record their errors; yield what returns the record so far."""
    with tempfile.TemporaryDirectory(prefix="launch-") as folder:
        path = Path(folder) / "errors"
        before = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = str(path)
        try:
            yield lambda: _end_of(path)
        finally:
            if before is None:
                del os.environ[VARIABLE]
            else:
                os.environ[VARIABLE] = before


def _end_of(path: Path) -> str:
    try:
        return path.read_bytes()[-_MOST:].decode(errors="replace")
    except FileNotFoundError:
        return ""  # nothing was said
