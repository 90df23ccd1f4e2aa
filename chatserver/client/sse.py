"""Server-sent events from bytes. Pure: bytes in, events out.

Lines are split at newlines only: JSON may hold U+2028 and others, at which `str.splitlines` would cut.
"""

from __future__ import annotations

from dataclasses import dataclass

from chatserver.client.errors import ProtocolError

MAX_EVENT = 64 * 1024 * 1024
"""Bytes of one event. The last event of an answer holds all of its text."""
PLACE = b": queue position "


@dataclass(frozen=True, slots=True)
class Data:
    """One event's data, as it came."""

    json: bytes


@dataclass(frozen=True, slots=True)
class Place:
    """The place in the queue, told in a comment: 1 is next."""

    place: int


class Decoder:
    """Feed it what arrives; an event that is cut off at the end is never handed out."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[Data | Place]:
        """Return the events that `chunk` completes. Raises ProtocolError if one is too large."""
        found: list[Data | Place] = []
        self._rest += chunk
        *lines, rest = self._rest.split(b"\n") if b"\n" in chunk else (self._rest,)
        self._rest = rest
        for line in lines:
            event = self._line(bytes(line.removesuffix(b"\r")))
            if event is not None:
                found.append(event)
        if self._size + len(self._rest) > MAX_EVENT:
            raise ProtocolError(f"an event of more than {MAX_EVENT} bytes")
        return found

    def _line(self, line: bytes) -> Data | Place | None:
        if not line:
            data, self._data, self._size = self._data, [], 0
            return Data(b"\n".join(data)) if data else None
        if line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
            self._size += len(line)
        elif line.startswith(PLACE):
            number = line[len(PLACE) :]
            return Place(int(number)) if number.isdigit() and len(number) < 12 else None
        return None  # comments; `event` and `id` are in the data as well
