"""What every arm of the engine benchmark is asked, and how streams are timed."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

PROMPT, ANSWER = 100, 48
"""Tokens of a prompt and of its answer where decoding is timed."""
LONG = 1024
"""Tokens of the prompt whose prefill is timed."""
CACHED, NEW = 4000, 20
"""Tokens of a cached prefix, and of what follows it."""

Ids = tuple[int, ...]


class Subject(Protocol):
    """One arm: something that answers questions about its speed. None: it does not do such a thing."""

    async def start(self) -> None:
        """Return when it is ready for requests and has answered one."""
        ...

    async def decode(self, seed: int, streams: int) -> float:
        """Return tokens a second over all streams, from when all have begun."""
        ...

    async def prefill(self, seed: int) -> float:
        """Return prompt tokens a second."""
        ...

    async def first(self, seed: int, cached: bool) -> float | None:
        """Return milliseconds to the first token behind NEW tokens, with or without CACHED cached before them."""
        ...

    async def ids(self) -> list[list[int]]:
        """Return greedy answers."""
        ...

    def memory(self, private: bool = False) -> float:
        """Return MB of memory held, shared pages divided among their holders; or what nobody shares alone."""
        ...

    async def close(self) -> None:
        """End whatever was started."""
        ...


def prompts(seed: object, count: int, length: int) -> list[Ids]:
    """Return random prompts; equal seeds give equal prompts in every arm."""
    source = random.Random(str(seed))
    return [tuple(source.randrange(20, 49_000) for _ in range(length)) for _ in range(count)]


def examples() -> list[Ids]:
    """Return the prompts whose greedy answers are compared."""
    return [prompts("ids", 1, length)[0] for length in (12, 130, 700)]


def behind(seed: int, cached: bool) -> tuple[Ids, Ids]:
    """Return a prefix (empty unless `cached`) and what follows it."""
    prefix = prompts("prefix", 1, CACHED)[0] if cached else ()
    return prefix, prompts(("new", seed, cached), 1, NEW)[0]


async def rate(answers: Sequence[AsyncIterator[int]]) -> float:
    """Return tokens a second over streams that yield counts of tokens, from when all of them have begun."""
    begun, counted = 0, 0
    first = time.perf_counter()

    async def follow(answer: AsyncIterator[int]) -> None:
        nonlocal begun, counted, first
        is_first = True
        async for count in answer:
            if is_first:
                is_first, begun = False, begun + 1
                if begun == len(answers):
                    first = time.perf_counter()
            elif begun == len(answers):
                counted += count

    await asyncio.gather(*(follow(answer) for answer in answers))
    return counted / (time.perf_counter() - first)
