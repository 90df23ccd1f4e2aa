"""One turn in the engine role: plan, generate, write the tape, end it.

claimed ─> prompt ─> Started ─> ItemOpened ─> Delta* ─> ItemClosed · Ended
             │           └── after a crash: Started again, then the deltas that are missing
             └── refused: Ended(failed); the input is taken back, so that the conversation stays usable
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import uuid4

from chatserver.domain.item import Item, ItemStatus, Role
from chatserver.domain.response import Failure, Finish, Outcome, Response, Status, Timing, Usage
from chatserver.domain.stops import StopFilter
from chatserver.domain.tape import Body, Delta, Ended, ItemClosed, ItemOpened, Record, Started
from chatserver.errors import BadRequest, ChatServerError, EngineFailed, NotFound, Overloaded
from chatserver.ports.tapes import Tapes
from chatserver.ports.turns import Turns
from chatserver.service.prompting import Prompt, PromptBuilder
from chatserver.service.tape_writer import TapeWriter
from engine.contract import (
    REQUEST_ID_LENGTH,
    Engine,
    EngineBusy,
    EngineError,
    EngineLost,
    FinishReason,
    GenerateRequest,
    RequestRefused,
    Sampling,
)

log = logging.getLogger(__name__)

MAX_CLAIMS = 4
"""A job that was claimed more often has taken its engine down each time: it is failed instead of tried again."""

BUSY_DELAYS = (0.05, 0.2, 0.5, 1.0, 2.0)
"""Seconds between tries while the engine's own queue is full."""


@dataclass(frozen=True, slots=True)
class TurnParts:
    """What every turn of one engine process shares. `salt` maps a tenant to its KV-cache salt."""

    engine: Engine
    prompts: PromptBuilder
    turns: Turns
    tapes: Tapes
    writer: TapeWriter
    salt: Callable[[str], str]


@dataclass(slots=True)
class _Progress:
    """What is on the tape, or on its way there. `last`: newest sequence number; `ids`, `text`: of the answer so far."""

    last: int = 1
    opened: bool = False
    ids: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    emitted_before: int = 0


class Turn:
    """Runs one claimed response to its end. `run()` once."""

    def __init__(self, parts: TurnParts, response: Response) -> None:
        self._parts = parts
        self._response = response
        self._progress = _Progress()
        self._request_id = uuid4().hex[:REQUEST_ID_LENGTH]
        self._stop_asked = response.stop_asked
        self._lost = False
        self._generating = False
        self._claimed_at = time.monotonic()
        self._handed_over_at = 0.0
        self._first_token_at = 0.0
        self._cached = 0
        self._aborts: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """Ask for the end: the scheduler drops the request within one step; what was written stays."""
        if not self._stop_asked:
            self._stop_asked = True
            self._abort()

    def lose(self) -> None:
        """Another engine has the job now: end without writing anything more."""
        if not self._lost:
            self._lost = True
            self._abort()

    async def run(self) -> None:
        """Produce the answer. Raises EngineLost if the engine died: the job must then be given back."""
        parts, response = self._parts, self._response
        parts.writer.open(response.id, response.claim, on_stop=self.stop, on_lost=self.lose)
        try:
            await self._produce()
        finally:
            parts.writer.close(response.id)

    async def _produce(self) -> None:
        try:
            if self._response.claim > 1:
                await self._recover()
            prompt = await self._parts.prompts.build(self._response)
            self._check_claims()
            finish = await self._generate(prompt)
        except (BadRequest, NotFound, Overloaded, EngineFailed) as error:
            await self._fail(error)
        except EngineLost:
            raise
        except (RequestRefused, EngineBusy, EngineError) as error:
            await self._fail(_as_server_error(error))
        except ChatServerError:
            raise
        except Exception:
            log.exception("turn %s failed", self._response.id)
            await self._fail(EngineFailed("The answer failed inside the server; its log has the details."))
        else:
            await self._complete(prompt, finish)

    async def _recover(self) -> None:
        """Read back what earlier claims wrote, so that the answer goes on with the next token and number."""
        progress, after = self._progress, -1
        while records := await self._parts.tapes.read(self._response.id, after):
            for record in records:
                after = record.last
                if isinstance(record.body, Delta):
                    progress.ids.extend(record.body.ids)
                    progress.pieces.extend(record.body.pieces)
                progress.opened = progress.opened or isinstance(record.body, ItemOpened)
        progress.last = max(after, progress.last)
        progress.emitted_before = len(progress.ids)

    def _check_claims(self) -> None:
        if self._response.claim > MAX_CLAIMS:
            raise EngineFailed(
                f"The engine died {self._response.claim - 1} times on this answer; it is not tried again."
            )

    async def _generate(self, prompt: Prompt) -> Finish:
        progress = self._progress
        self._write(Started(len(prompt.ids), self._response.claim))
        if not progress.opened:
            self._write(ItemOpened(self._response.item_id))
            progress.opened = True
        left = prompt.max_output - len(progress.ids)
        if ended := self._already_over(left):
            return ended
        stops, finish = self._replayed_stops(), None
        decoder = self._replayed_decoder()
        async for chunk in self._chunks(prompt, left):
            pairs = stops.feed([(token, decoder.push(token)) for token in chunk.ids])
            if chunk.finish is not None:
                pairs += stops.flush()
                finish = chunk.finish
            self._delta(pairs)
            await self._parts.writer.flow(self._response.id)
        if self._stop_asked:
            return Finish.STOPPED
        if finish is FinishReason.ABORT and not self._lost:
            raise EngineLost("the engine aborted the request")
        return Finish.LENGTH if finish is FinishReason.LENGTH and stops.matched is None else Finish.STOP

    def _already_over(self, left: int) -> Finish | None:
        """Tell whether a recovered answer was whole already, or a stop came before the first step."""
        progress = self._progress
        if self._stop_asked or self._lost:
            return Finish.STOPPED
        if (
            progress.ids
            and progress.ids[-1] in self._parts.engine.card.end_ids
            and not self._response.params.ignore_end
        ):
            return Finish.STOP
        return Finish.LENGTH if left <= 0 else None

    def _replayed_decoder(self):
        decoder = self._parts.engine.tokenizer.decoder()
        for token in self._progress.ids:
            decoder.push(token)
        return decoder

    def _replayed_stops(self) -> StopFilter:
        # What is on the tape is final: only text after it can still begin a stop string.
        return StopFilter(self._response.params.stop)

    async def _chunks(self, prompt: Prompt, left: int):
        params, progress = self._response.params, self._progress
        sampling = Sampling(
            max_tokens=left,
            temperature=params.temperature,
            top_p=params.top_p,
            top_k=params.top_k,
            stop=params.stop,
            seed=params.seed,
            presence_penalty=params.presence_penalty,
            frequency_penalty=params.frequency_penalty,
            ignore_end=params.ignore_end,
        )
        request = GenerateRequest(
            self._request_id, (*prompt.ids, *progress.ids), sampling, self._parts.salt(self._response.tenant)
        )
        self._handed_over_at = time.monotonic()
        self._generating = True
        try:
            async for chunk in self._patiently(request):
                if chunk.ids and not self._first_token_at:
                    self._first_token_at = time.monotonic()
                self._cached = chunk.cached
                if (self._stop_asked or self._lost) and chunk.finish is None:
                    self._abort()  # the first abort may have come before the scheduler knew the request
                yield chunk
        finally:
            self._generating = False

    async def _patiently(self, request: GenerateRequest):
        """Generate, trying again for a while when the engine's own queue is full."""
        for delay in (*BUSY_DELAYS, None):
            try:
                async for chunk in self._parts.engine.generate(request):
                    yield chunk
                return
            except EngineBusy:
                if delay is None or self._stop_asked:
                    raise
                await asyncio.sleep(delay)

    def _delta(self, pairs: list[tuple[int, str]]) -> None:
        if not pairs or self._lost:
            return
        ids, pieces = zip(*pairs, strict=True)
        self._progress.ids.extend(ids)
        self._progress.pieces.extend(pieces)
        self._write(Delta(pieces, ids))

    def _write(self, body: Body) -> None:
        if not self._lost:
            self._progress.last += body.width
            self._parts.writer.write(self._response.id, Record(self._progress.last, body))

    async def _complete(self, prompt: Prompt, finish: Finish) -> None:
        if self._lost:
            return
        status = {
            Finish.STOP: Status.COMPLETED,
            Finish.LENGTH: Status.INCOMPLETE,
            Finish.STOPPED: Status.CANCELLED,
        }[finish]
        progress = self._progress
        item = Item(
            id=self._response.item_id,
            parent=self._response.inputs[-1] if self._response.inputs else self._response.parent,
            role=Role.ASSISTANT,
            text="".join(progress.pieces),
            status=ItemStatus.COMPLETED if finish is Finish.STOP else ItemStatus.INCOMPLETE,
            response_id=self._response.id,
            created_at=int(time.time()),
        )
        usage = Usage(
            prompt=len(prompt.ids), cached=min(self._cached, len(prompt.ids)), output=len(progress.ids)
        )
        outcome = Outcome(
            status, finish, usage, item, self._timing(), prompt.ledger, completed_at=int(time.time())
        )
        encoded = {**prompt.encoded, item.id: self._parts.prompts.answer_ids(progress.ids)}
        closing: list[Body] = [ItemClosed(item.id, item.text, finish is Finish.STOP), Ended(outcome)]
        await self._end(outcome, closing, encoded, prompt.ledger.template_hash)

    async def _fail(self, error: ChatServerError) -> None:
        """End as failed. Nothing was written yet: the input is taken back; else what was written is kept."""
        if self._lost:
            return
        progress = self._progress
        refused = not progress.opened and isinstance(error, BadRequest)
        failure = Failure(error.code, error.message, error.param, error.status, error.kind)
        item = None
        if progress.opened:
            item = Item(
                id=self._response.item_id,
                parent=self._response.inputs[-1] if self._response.inputs else self._response.parent,
                role=Role.ASSISTANT,
                text="".join(progress.pieces),
                status=ItemStatus.INCOMPLETE,
                response_id=self._response.id,
                created_at=int(time.time()),
            )
        outcome = Outcome(
            Status.FAILED,
            Finish.ERROR,
            Usage(output=len(progress.ids)),
            item,
            self._timing(),
            failure=failure,
            completed_at=int(time.time()),
        )
        closing: list[Body] = [ItemClosed(item.id, item.text, False)] if item else []
        encoded = {item.id: self._parts.prompts.answer_ids(progress.ids)} if item else {}
        template_hash = self._parts.engine.card.template_hash
        await self._end(outcome, [*closing, Ended(outcome)], encoded, template_hash, discard_inputs=refused)

    async def _end(
        self,
        outcome: Outcome,
        closing: list[Body],
        encoded: dict[str, tuple[int, ...]],
        template_hash: str,
        *,
        discard_inputs: bool = False,
    ) -> None:
        await self._parts.writer.flush(self._response.id)
        if self._lost:
            return
        records = []
        for body in closing:
            self._progress.last += body.width
            records.append(Record(self._progress.last, body))
        kept = await self._parts.turns.finish(
            self._response,
            outcome,
            records,
            encoded,
            template_hash=template_hash,
            discard_inputs=discard_inputs,
        )
        if not kept:
            log.warning("turn %s was taken over by another engine before it ended", self._response.id)

    def _timing(self) -> Timing:
        now, start = time.monotonic(), self._claimed_at
        new = len(self._progress.ids) - self._progress.emitted_before
        seconds = now - self._first_token_at if self._first_token_at else 0.0
        wall_queued = max(0.0, time.time() - (now - start) - self._response.accepted_at)
        first = self._first_token_at or now
        return Timing(
            queued_ms=round(wall_queued * 1000, 2),
            engine_ttft_ms=round((first - self._handed_over_at) * 1000, 2) if self._handed_over_at else 0.0,
            ttft_ms=round((wall_queued + first - start) * 1000, 2),
            tokens_per_second=round((new - 1) / seconds, 2) if new > 1 and seconds > 0 else 0.0,
        )

    def _abort(self) -> None:
        if self._generating:
            task = asyncio.ensure_future(self._parts.engine.abort(self._request_id))
            self._aborts.add(task)
            task.add_done_callback(self._aborts.discard)


def _as_server_error(error: EngineError) -> ChatServerError:
    if isinstance(error, RequestRefused):
        return BadRequest(str(error), code="request_refused")
    if isinstance(error, EngineBusy):
        return Overloaded(f"The engine's queue is full: {error}", retry_after=2.0)
    return EngineFailed(f"The engine failed: {error}")
