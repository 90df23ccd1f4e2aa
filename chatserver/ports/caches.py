"""What web processes and engines tell each other about the KV cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from chatserver.domain.response import Failure, Params


@dataclass(frozen=True, slots=True)
class Warm:
    """For all engines: a turn of this conversation is likely to come soon."""

    tenant: str
    conversation: str


@dataclass(frozen=True, slots=True)
class Look:
    """For all engines: say under `ask` what your cache holds of this conversation."""

    tenant: str
    conversation: str
    ask: str


@dataclass(frozen=True, slots=True)
class Release:
    """For all engines: free what only this conversation holds, and say under `ask` how many tokens that were.

    Of a conversation that is there still: what belongs to items that are gone; with `everything`, all of it.
    """

    tenant: str
    conversation: str
    ask: str
    everything: bool = False


@dataclass(frozen=True, slots=True)
class Count:
    """For one engine: say under `ask` how many tokens a prompt would have.

    It is `params.messages` behind the branch of `conversation` that ends with `leaf`, or alone.
    """

    engine_id: str
    tenant: str
    params: Params
    ask: str
    conversation: str | None = None
    leaf: str | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """The answer: tokens, or why they cannot be told."""

    tokens: int = 0
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class CacheReport:
    """What one engine's cache holds of a conversation, in tokens.

    `prefix`: what the next prompt will begin with, all but the new message. `warm`: how much of it is there, in
    whole pages of `page`. `cut`: the item that it begins with behind the instructions, None if nothing is dropped.
    """

    engine_id: str
    prefix: int
    warm: int
    page: int
    cut: str | None = None


class Caches(Protocol):
    """Fire-and-forget questions, and answers that are kept for a few seconds. Engines hear by `Signals.commands`."""

    async def warm(self, command: Warm) -> None:
        """Tell all engines. Raises Unavailable."""
        ...

    async def look(self, command: Look) -> None:
        """Ask all engines. Raises Unavailable."""
        ...

    async def release(self, command: Release) -> None:
        """Tell all engines. Raises Unavailable."""
        ...

    async def released(self, command: Release, engine_id: str, tokens: int) -> None:
        """Leave how many tokens an engine freed for who asked. Raises Unavailable."""
        ...

    async def freed(self, command: Release) -> list[int]:
        """Return how many tokens each engine freed, so far. Raises Unavailable."""
        ...

    async def count(self, command: Count) -> None:
        """Ask one engine. Raises Unavailable."""
        ...

    async def counted(self, command: Count, answer: Counted) -> None:
        """Leave an engine's answer for who asked. Raises Unavailable."""
        ...

    async def counts(self, command: Count) -> list[Counted]:
        """Return the answer, if it is there. Raises Unavailable."""
        ...

    async def answer(self, command: Look, report: CacheReport) -> None:
        """Leave an engine's answer for who asked. Raises Unavailable."""
        ...

    async def answers(self, command: Look) -> list[CacheReport]:
        """Return the answers so far, in order of their engines' ids. Raises Unavailable."""
        ...
