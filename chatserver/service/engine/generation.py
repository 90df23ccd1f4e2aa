"""One request to the engine: from a prompt to (token, piece) pairs whose text is final."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from itertools import zip_longest
from secrets import token_hex

from chatserver.domain.logprob import Logprob
from chatserver.domain.response import Params
from chatserver.domain.stops import Pair, StopFilter
from chatserver.errors import BadRequest, ChatServerError, EngineFailed, Overloaded
from chatserver.service.engine.likelihood import shown
from engine.answers import Form
from engine.contract import (
    REQUEST_ID_LENGTH,
    Chunk,
    Engine,
    EngineBusy,
    EngineError,
    FinishReason,
    GenerateRequest,
    RequestRefused,
    Sampling,
)
from engine.token_contract import Decoder

BUSY_DELAYS = (0.05, 0.2, 0.5, 1.0, 2.0)
"""Seconds between tries while the engine's own queue is full."""


class Generation:
    """Runs one request; `stop()` may come at any time, also before it is under way.

    `emitted`: ids of the answer that are on its tape already. The engine is sent prompt + emitted and goes
    on behind them; the decoder is fed them again, so that a character that was cut in two is whole. `form`: what
    the answer is made of.
    """

    def __init__(
        self,
        engine: Engine,
        params: Params,
        salt: str,
        emitted: Sequence[int] = (),
        form: Form | None = None,
    ) -> None:
        self.cached = 0
        """Prompt tokens that came from the KV cache, once the first chunk is here."""
        self.finish: FinishReason | None = None
        self.started_at = 0.0
        self.first_at = 0.0
        """`time.monotonic()` of handing over the prompt and of the first token; 0.0 = not yet."""
        self._engine = engine
        self._params = params
        self._salt = salt
        self._form = form or Form()
        self._emitted = tuple(emitted)
        self._stops = StopFilter(params.stop)
        self._logprobs: deque[Logprob | None] = deque()
        self._id = token_hex(REQUEST_ID_LENGTH // 2)
        self.stopping = False
        """Whether `stop` was called."""
        self._aborts: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """Have the scheduler drop the request within one step; what it made until then still comes."""
        self.stopping = True
        if self.started_at:
            task = asyncio.ensure_future(self._engine.abort(self._id))
            self._aborts.add(task)
            task.add_done_callback(self._aborts.discard)

    async def run(self, prompt: Sequence[int], max_tokens: int) -> AsyncGenerator[list[Pair], None]:
        """Yield pairs, a list per scheduler step. Raises what the engine raises."""
        decoder = self._decoder()
        self._stops.earlier = "".join([decoder.push(token) for token in self._emitted])
        request = GenerateRequest(
            self._id,
            (*prompt, *self._emitted),
            self._sampling(max_tokens),
            self._salt,
            self._params.logprobs,
            form=self._form,
            emitted=len(self._emitted),
        )
        async with contextlib.aclosing(self._patiently(request)) as chunks:
            async for chunk in chunks:
                self._note(chunk)
                pairs = self._stops.feed([(token, decoder.push(token)) for token in chunk.ids])
                yield pairs + self._stops.flush() if chunk.finish else pairs
                if self.matched:
                    return  # the engine, which only knows its own part of an answer, may have seen nothing

    def logprobs(self, count: int) -> list[Logprob | None]:
        """Take those of the next `count` pairs that `run` yielded, one each; [] if none were asked for."""
        return [self._logprobs.popleft() for _ in range(min(count, len(self._logprobs)))]

    @property
    def matched(self) -> bool:
        """Whether a stop string ended the answer."""
        return self._stops.matched is not None

    def was_matched(self, after: int) -> bool:
        """Whether what was emitted ends with a stop string: the process died before it said so.

        `after`: the first tokens, which another response wrote; a stop string may begin there, not end there.
        """
        if not self._params.stop or len(self._emitted) <= after:
            return False
        decoder = self._decoder()
        pairs = [(token, decoder.push(token)) for token in self._emitted]
        stops = StopFilter(self._params.stop, "".join(piece for _, piece in pairs[:after]))
        stops.feed(pairs[after:])
        return stops.matched is not None

    def _decoder(self) -> Decoder:
        return self._engine.tokenizer.decoder(marks=self._form.calls)

    async def _patiently(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Generate, trying again for a while when the engine's own queue is full."""
        for delay in (*BUSY_DELAYS, None):
            self.started_at = time.monotonic()
            try:
                async with contextlib.aclosing(self._engine.generate(request)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                return
            except EngineBusy:
                if delay is None or self.stopping:
                    raise
                await asyncio.sleep(delay)

    def _note(self, chunk: Chunk) -> None:
        if chunk.ids and not self.first_at:
            self.first_at = time.monotonic()
        if self._params.logprobs is not None:
            for token, logprob in zip_longest(chunk.ids, chunk.logprobs):
                self._logprobs.append(logprob and shown(self._engine.tokenizer, token, logprob))
        self.cached = chunk.cached
        self.finish = chunk.finish
        if self.stopping and chunk.finish is None:
            self.stop()  # the first abort may have come before the scheduler knew the request

    def _sampling(self, max_tokens: int) -> Sampling:
        params, card = self._params, self._engine.card
        return Sampling(
            max_tokens=max_tokens,
            temperature=card.temperature if params.temperature is None else params.temperature,
            top_p=card.top_p if params.top_p is None else params.top_p,
            top_k=card.top_k if params.top_k is None else params.top_k,
            stop=params.stop,
            seed=params.seed,
            presence_penalty=params.presence_penalty,
            frequency_penalty=params.frequency_penalty,
            repetition_penalty=params.repetition_penalty,
            ignore_end=params.ignore_end,
            min_p=params.min_p,
            logit_bias=params.logit_bias,
        )


def form_of(params: Params) -> Form:
    """Return what a request says about the form of its answer."""
    return Form(params.thinking, params.tools, params.tool_choice, params.parallel_calls, params.schema)


def _wire_field(field: str, response_id: str) -> str:
    """Return a form's field as the client knows it."""
    if response_id.startswith("chatcmpl"):
        field = field.replace("].parameters", "].function.parameters")
        return {"schema": "response_format.json_schema.schema"}.get(field, field)
    return {"schema": "text.format.schema", "thinking": "reasoning.effort"}.get(field, field)


def as_server_error(error: EngineError, response_id: str = "") -> ChatServerError:
    """Return what a refusal of the engine means for the client. `response_id`: tells which dialect."""
    if isinstance(error, RequestRefused):
        if error.field is not None:
            field = _wire_field(error.field, response_id)
            return BadRequest(f"{field}: {error}", param=field, code="unsupported_value")
        return BadRequest(f"The engine refused the request: {error}.", code="request_refused")
    if isinstance(error, EngineBusy):
        return Overloaded(f"The engine's queue is full: {error}", retry_after=2.0)
    return EngineFailed(f"The engine failed: {error}")
