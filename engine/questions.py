"""Questions to SGLang's schedulers, each answered once by every attention group."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

_MOST = 256
"""Questions that wait at a time; a scheduler that leaves so many unanswered is stuck."""


class Questions:
    """Sends messages and gathers their answers by id. `groups`: answers that each question gets.

    SGLang's own communicator gives a late answer to the next question; by id it is dropped instead.
    """

    def __init__(self, send: Callable[[Any], None], groups: int) -> None:
        self._send = send
        self._groups = groups
        self._open: dict[str, tuple[list[Any], asyncio.Future[list[Any]]]] = {}

    async def ask(self, question: Any, timeout: float) -> list[Any]:
        """Return all groups' answers. Raises TimeoutError after `timeout` seconds, or if too many wait already."""
        if len(self._open) >= _MOST:
            raise TimeoutError
        question.rid = uuid4().hex
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._open[question.rid] = ([], future)
        try:
            self._send(question)
            return await asyncio.wait_for(future, timeout)
        finally:
            del self._open[question.rid]

    def answered(self, answer: Any) -> None:
        """Take one group's answer; late ones are dropped."""
        if answer.rid not in self._open:
            return
        answers, future = self._open[answer.rid]
        answers.append(answer)
        if len(answers) == self._groups and not future.done():
            future.set_result(answers)
