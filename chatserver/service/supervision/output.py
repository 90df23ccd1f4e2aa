"""What a child process prints, as bounded printable lines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Iterator

LINE_LIMIT = 2000
"""Characters of a line that are kept."""

_HELD = 4 * LINE_LIMIT
"""Bytes of an unfinished line that are kept: four make a character at most."""
_UNPRINTABLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0a-\x1f\x7f]")


class Output:
    """A pipe for the standard output and error of one process.

    It is a pipe of our own because with asyncio's, `Process.wait()` would wait for grandchildren that
    inherited the other end. Give it away with `handed_over`, then read `lines` to the end.
    """

    def __init__(self) -> None:
        self._ours, self._theirs = os.pipe()

    @contextlib.contextmanager
    def handed_over(self) -> Iterator[int]:
        """Lend the end to write to, and close it here afterwards, so that reading ends with the process."""
        try:
            yield self._theirs
        except BaseException:
            os.close(self._ours)
            raise
        finally:
            os.close(self._theirs)

    async def lines(self) -> AsyncIterator[str]:
        """Yield what is printed, a line at a time, until nobody holds the other end."""
        pipe = os.fdopen(self._ours, "rb", buffering=0)
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, pipe)
        held = b""
        try:
            while chunk := await reader.read(65536):
                *whole, held = (held + chunk).split(b"\n")
                for line in whole:
                    yield _clean(line)
                held = _drawn(held)[:_HELD]
            if held:
                yield _clean(held)
        finally:
            transport.close()


def _drawn(line: bytes) -> bytes:
    """Return what a line shows: a progress bar redraws it with carriage returns, and the last one counts."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]


def _clean(line: bytes) -> str:
    text = _UNPRINTABLE.sub("", _drawn(line).decode(errors="replace"))
    return text if len(text) <= LINE_LIMIT else text[:LINE_LIMIT] + "…"
