"""What comes of one request: the schedulers' outputs put in, chunks taken out. No task, no queue, no copy per token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from engine.contract import Chunk, EngineError, FinishReason, TokenLogprob
from engine.requests import refusal
from engine.watchdog import Wait


class Stream:
    """Chunks of one request, for one consumer. `over`: the schedulers know the request no more, or never will.

    `wait`: tells the watchdog for how long the consumer has had nothing. `tops`: likeliest tokens that were asked for
    with each token, None if no log-probabilities were.
    """

    def __init__(self, wait: Wait, tops: int | None = None) -> None:
        self.wait = wait
        self.over = False
        self.aborted = False
        """Whether the schedulers were asked to drop it."""
        self._tops = tops
        self._chunk: Chunk | None = None
        """What has come and was not taken."""
        self._error: EngineError | None = None
        self._cached = 0
        self._waiter: asyncio.Future[None] | None = None

    def put(self, output: Any, place: int) -> None:
        """Add one output of the schedulers: `output` is SGLang's BatchTokenIDOutput, `place` the request's in it."""
        self._cached = output.cached_tokens[place]
        ids = tuple(output.output_ids[place])
        logprobs = () if self._tops is None else _logprobs(output, place, len(ids), self._tops)
        self._add(ids, output.finished_reasons[place], logprobs)

    def end(self, reason: dict[str, Any]) -> None:
        """Add the end of a request that the schedulers dropped from their queue. `reason`: SGLang's."""
        self._add((), reason, ())

    def fail(self, error: EngineError) -> None:
        """Have the consumer get `error` behind what has come; only the first counts, and none after the end."""
        if self._error is None and not self.over:
            self._error = error
            self._wake()

    async def take(self) -> Chunk:
        """Return what is new, as soon as there is something. Raises what the stream failed with. One caller."""
        while self._chunk is None:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            self.wait.since = time.monotonic()
            try:
                await self._waiter
            finally:
                self._waiter = self.wait.since = None
        chunk, self._chunk = self._chunk, None
        return chunk

    def _add(
        self, ids: tuple[int, ...], reason: dict[str, Any] | None, logprobs: tuple[TokenLogprob, ...]
    ) -> None:
        finish = None
        if reason is not None:
            if (error := refusal(reason)) is not None:
                self.fail(error)
                self.over = True
                return
            finish = FinishReason(reason["type"])
            self.over = True
        elif not ids:
            if self.wait.since is not None:
                self.wait.since = time.monotonic()  # a sign of life
            return
        if (earlier := self._chunk) is not None:
            ids, logprobs = earlier.ids + ids, earlier.logprobs + logprobs
        self._chunk = Chunk(ids, self._cached, finish, logprobs)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _logprobs(output: Any, place: int, count: int, tops: int) -> tuple[TokenLogprob, ...]:
    """Return the log-probabilities of an output's `count` tokens."""
    values: Sequence[float] = output.output_token_logprobs_val[place][:count]
    if not tops:
        return tuple(TokenLogprob(value, ()) for value in values)
    likely = zip(output.output_top_logprobs_val[place], output.output_top_logprobs_idx[place], strict=True)
    return tuple(
        TokenLogprob(value, tuple(zip(ids or (), top or (), strict=True)))
        for value, (top, ids) in zip(values, likely, strict=False)
    )
