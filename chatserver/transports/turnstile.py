"""How many requests begin in one turn of the event loop: nobody's first token waits for the requests of all others.

    200 requests at once ──> 4 ──> tokens, replies of the store ──> 4 ──> tokens … in the order in which they came

Without it all are read and checked before anything else happens, and the first one is hardly sooner than the last.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

A_TURN = 4
"""Requests that begin in one turn: about 1 ms. See decision 14."""


class Turnstile:
    """Lets in A_TURN requests a turn of the loop. Who has gone meanwhile takes nobody's turn, and is kept no longer."""

    def __init__(self) -> None:
        self._in = 0
        self._waiting: deque[Callable[[], bool]] = deque()
        self._turns = False

    def enter(self, begin: Callable[[], bool]) -> bool:
        """Return True if it is the caller's turn; else `begin` is called once it is, and says whether it began."""
        if self._in < A_TURN and not self._waiting:
            self._in += 1
            self._turn_soon()
            return True
        self._waiting.append(begin)
        return False

    def _turn_soon(self) -> None:
        if not self._turns:
            self._turns = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._in, self._turns = 0, False
        if self._waiting:
            self._turn_soon()  # first: one that fails must not hold up the others
        while self._waiting and self._in < A_TURN:
            self._in += self._waiting.popleft()()
