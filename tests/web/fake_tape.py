"""The tapes of the fake server: numbered events that any number of followers read."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Script:
    """What a question asks of its answer."""

    queue: float = 0.0
    gap: float = 0.01
    drop: int = -1
    fail: int = -1
    words: int = 24
    think: int = 0
    recover: int = -1
    cut: int = 0

    @classmethod
    def of(cls, text: str) -> Script:
        """Read the script from a question."""
        found: dict[str, str] = dict(
            re.findall(r"(queue|gap|drop|fail|words|think|recover|cut)=([\d.]+)", text)
        )
        numbers: dict[str, Any] = {
            name: (float if name in ("queue", "gap") else int)(value) for name, value in found.items()
        }
        return cls(**numbers)


@dataclass
class Tape:
    """One answer: its events, and a bell for those who follow it."""

    response: dict[str, Any]
    script: Script
    held: Callable[[], bool]
    """Whether it stands still before its end."""
    events: list[dict[str, Any]] = field(default_factory=list)
    seq: int = -1
    stop: bool = False
    ended: bool = False
    dropped: bool = False
    bell: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def write(self, kind: str, width: int = 1, **fields: Any) -> None:
        """Append an event that takes `width` sequence numbers."""
        self.seq += width
        self.events.append({"type": kind, "sequence_number": self.seq, **fields})
        async with self.bell:
            self.bell.notify_all()

    async def follow(self) -> AsyncIterator[dict[str, Any]]:
        """Yield every event from the start, waiting for those to come."""
        place = 0
        while True:
            if place == len(self.events):
                if self.ended:
                    return
                async with self.bell:
                    await self.bell.wait_for(functools.partial(self._has_more, place))
                continue
            yield self.events[place]
            place += 1

    def _has_more(self, place: int) -> bool:
        return place < len(self.events) or self.ended
