"""One turn in the engine role: plan, generate, write the tape, end it.

claimed ─> prompt ─> Started ─> ItemOpened ─> Delta* ─> ItemClosed · Ended
             │           └── after a crash: Started again, then the deltas that are missing
             └── refused: Ended(failed); the input is taken back, so that the conversation stays usable
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from chatserver.domain.item import Item, ItemStatus, Role
from chatserver.domain.response import Failure, Finish, Outcome, Response, Status
from chatserver.domain.stops import Pair
from chatserver.domain.tape import Body, Ended, Prefilled, Started
from chatserver.errors import (
    BadRequest,
    ChatServerError,
    EngineFailed,
    ModelNotFound,
    NotFound,
    Unavailable,
)
from chatserver.ports.tapes import Tapes
from chatserver.ports.turns import Turns
from chatserver.service.engine import account
from chatserver.service.engine.afterwards import Afterwards
from chatserver.service.engine.compaction import Compactor
from chatserver.service.engine.generation import Generation, as_server_error, form_of
from chatserver.service.engine.insistence import insist
from chatserver.service.engine.prefixes import Prefixes
from chatserver.service.engine.prompting import Prompt, PromptBuilder
from chatserver.service.engine.tally import Tally
from chatserver.service.engine.tape_writer import TapeWriter
from chatserver.service.engine.written import Written
from engine.answers import Splitter
from engine.contract import Engine, EngineError, EngineLost, FinishReason
from engine.token_contract import Shown

log = logging.getLogger(__name__)

MAX_CLAIMS = 4
"""A job that was claimed more often has taken its engine down each time: it is failed, not tried again."""

LONGEST_WAIT = 600.0
"""Seconds for which an answer that nobody watches stands back behind others."""

STATUS = {
    Finish.STOP: Status.COMPLETED,
    Finish.LENGTH: Status.INCOMPLETE,
    Finish.STOPPED: Status.CANCELLED,
    Finish.ERROR: Status.FAILED,
}


@dataclass(frozen=True, slots=True)
class TurnParts:
    """What every turn of one engine process shares. `salt` maps a tenant to its KV-cache salt."""

    engine: Engine
    prompts: PromptBuilder
    turns: Turns
    tapes: Tapes
    writer: TapeWriter
    prefixes: Prefixes
    compactor: Compactor
    salt: Callable[[str], str]
    tally: Tally = field(default_factory=Tally)


class Turn:
    """Runs one claimed response to its end. `run()` once."""

    def __init__(self, parts: TurnParts, response: Response) -> None:
        self._parts = parts
        self._response = response
        self._salt = parts.salt(response.tenant)
        self._afterwards = Afterwards(parts.prompts, parts.prefixes, parts.compactor, response, self._salt)
        self._written = Written(response.item_id, logprobs=response.params.logprobs is not None)
        self._form = form_of(response.params)
        self._splitter: Splitter | None = None
        self._prompt: Prompt | None = None
        self._generation: Generation | None = None
        self._stop_asked = response.stop_asked
        self._lost = False
        self._over = asyncio.Event()
        self._place = asyncio.Event()
        self._place.set()
        self._claimed_at = time.monotonic()

    def stop(self) -> None:
        """Ask for the end: the scheduler drops the request within one step; what was written stays."""
        if not self._stop_asked:
            self._stop_asked = True
            self._stop_generating()

    def lose(self) -> None:
        """Another engine has the job now: end without writing anything more."""
        if not self._lost:
            self._lost = True
            self._stop_generating()

    @property
    def waits(self) -> bool:
        """Whether it left the scheduler by `give_way` and takes no place there."""
        return not self._place.is_set()

    def give_way(self) -> None:
        """Leave the scheduler until `go_on`: what was written stays, the rest comes later."""
        if self._generation is not None and self._generation.first_at and not self._over.is_set():
            self._place.clear()
            self._generation.stop()

    def go_on(self) -> None:
        """Take a place in the scheduler again."""
        self._place.set()

    async def run(self) -> None:
        """Produce the answer. Raises EngineLost or Unavailable: the job must then be claimed again."""
        writer, response = self._parts.writer, self._response
        writer.open(response.id, response.claim, on_stop=self.stop, on_lost=self.lose)
        try:
            await self._answer()
        except (EngineLost, Unavailable):
            raise
        except (ChatServerError, EngineError) as error:
            await self._fail(
                error if isinstance(error, ChatServerError) else as_server_error(error, response.id)
            )
        except Exception:
            log.exception("answer %s failed", response.id)
            await self._fail(EngineFailed("The answer failed inside the server; its log has the details."))
        finally:
            writer.close(response.id)

    async def _answer(self) -> None:
        response, served = self._response, self._parts.engine.card
        if response.claim > 1:
            await self._written.read_back(self._parts.tapes, response.id)
        if response.claim > MAX_CLAIMS:
            raise EngineFailed(f"The engine died {response.claim - 1} times on this answer; it is given up.")
        if response.params.model != served.name:
            raise ModelNotFound(
                f"{response.params.model} is no longer served; {served.name} is.", param="model"
            )
        self._splitter = await self._splitting()
        self._prompt = prompt = await insist(lambda: self._parts.prompts.build(response), waits=response.id)
        await self._parts.prefixes.wait_for(response.conversation, self._salt, prompt.ids, self._over)
        await self._end(await self._generate(prompt))

    async def _splitting(self) -> Splitter | None:
        """Return what takes the answer apart. Raises RequestRefused: its form cannot be had."""
        form, split = self._form, self._parts.engine.splitter
        # schemas are checked: some take long
        return await asyncio.to_thread(split, form) if form.tools or form.schema else split(form)

    async def _generate(self, prompt: Prompt) -> Finish:
        parts, written = self._parts, self._written
        self._write(Started(prompt.length, self._response.claim), urgent=False)
        decoder = parts.engine.tokenizer.decoder(marks=self._form.calls)
        for bodies in written.begin(self._splitter, decoder, prompt.carried):
            self._write(*bodies, urgent=False)
            await parts.writer.flow(self._response.id)
        while (finish := await self._generate_on(prompt)) is None:
            with contextlib.suppress(TimeoutError):  # after that long it is its turn again, whoever waits
                async with asyncio.timeout(LONGEST_WAIT):
                    await self._place.wait()
            self._place.set()
            written.before = len(written.ids)
        return finish

    async def _generate_on(self, prompt: Prompt) -> Finish | None:
        """Run one request behind what is written. None: it gave way, and is to be continued."""
        parts, written = self._parts, self._written
        left = prompt.max_output - written.output
        generation = Generation(parts.engine, self._response.params, self._salt, written.ids, self._form)
        if ended := self._already_over(left, generation):
            return ended
        self._generation = generation
        async with contextlib.aclosing(generation.run(prompt.ids, left)) as steps:
            async for pairs in steps:
                self._delta(pairs)
                await parts.writer.flow(self._response.id)
        if self._stop_asked or self._lost:
            return Finish.STOPPED
        if generation.finish is FinishReason.ABORT:
            if generation.stopping:
                return None
            raise EngineLost("the engine aborted a request that nobody asked it to abort")
        return Finish.STOP if generation.matched or generation.finish is FinishReason.STOP else Finish.LENGTH

    def _already_over(self, left: int, generation: Generation) -> Finish | None:
        """Tell whether a recovered answer was whole already, or a stop came before the first step."""
        ids, ends = self._written.ids, self._parts.engine.card.end_ids
        if self._stop_asked or self._lost:
            return Finish.STOPPED
        if ids and ids[-1] in ends and not self._response.params.ignore_end:
            return Finish.STOP
        if generation.was_matched(self._written.carried):
            return Finish.STOP
        return Finish.LENGTH if left <= 0 else None

    def _delta(self, pairs: list[Pair]) -> None:
        self._parts.prefixes.answering(self)
        if pairs and self._generation and not self._lost:
            logprobs = self._generation.logprobs(len(pairs))
            self._write(*self._prefilled(), *self._written.take(pairs, logprobs))

    def _prefilled(self) -> list[Body]:
        """Return what is told before the first token, to those who asked for it."""
        generation = self._generation
        if not self._response.params.progress or self._written.output or not (generation and self._prompt):
            return []
        ms = round((generation.first_at - generation.started_at) * 1000, 2)
        return [Prefilled(self._prompt.length, min(generation.cached, self._prompt.length), ms)]

    def _write(self, *bodies: Body, urgent: bool = True) -> None:
        if not self._lost:
            records = map(self._written.number, bodies)
            self._parts.writer.write(self._response.id, *records, urgent=urgent)

    async def _fail(self, error: ChatServerError) -> None:
        """End as failed. If nothing was written the input of a bad request is taken back; else all is kept."""
        failure = Failure(error.code, error.message, error.param, error.status, error.kind)
        refused = not self._written.opened and isinstance(error, (BadRequest, NotFound))
        await self._end(Finish.ERROR, failure=failure, discard_inputs=refused)

    async def _end(
        self, finish: Finish, *, failure: Failure | None = None, discard_inputs: bool = False
    ) -> None:
        """Write the end: the item, if one was opened, the outcome, the ids; all in one step."""
        response, written, generation = self._response, self._written, self._generation
        closing = written.finish(complete=finish is Finish.STOP) if written.opened else []
        item = self._item(finish) if closing else None
        prompt = self._prompt if item else None
        shown = Shown(())
        if item:
            shown = await self._parts.prompts.encoder.shown(written.ids, response.params.thinking)
        upcoming = self._afterwards.upcoming(prompt, shown.ids) if prompt else None
        outcome = Outcome(
            status=STATUS[finish],
            finish=finish,
            usage=account.usage(self._prompt, generation, written, shown, failed=failure is not None),
            item=item,
            timing=account.timing(response, generation, written, self._claimed_at),
            ledger=account.ledger(prompt.ledger, shown, upcoming) if prompt else None,
            failure=failure,
            completed_at=int(time.time()),
            logprobs=written.logprobs if item else (),
        )
        encoded = dict(prompt.encoded) if prompt else {}
        if item:
            encoded[item.id] = shown.ids
        await self._parts.writer.flush(response.id)
        if self._lost:
            return
        done = prompt if generation and generation.first_at and failure is None else None
        if done is not None:
            self._afterwards.note_cached(done, written.ids, upcoming)
        records = [written.number(body) for body in (*closing, Ended(outcome))]
        finish_it = partial(
            self._parts.turns.finish,
            *(response, outcome, records, encoded),
            template_hash=self._parts.engine.card.template_hash,
            emitted=written.ids,
            discard_inputs=discard_inputs,
        )
        kept = await insist(finish_it, waits=f"the end of {response.id}")
        if kept:
            self._parts.tally.note(outcome)
        else:
            log.warning("answer %s was taken over by another engine before it ended", response.id)
        if kept and done is not None:
            await self._afterwards.leave_behind(done, upcoming)

    def _item(self, finish: Finish) -> Item:
        response = self._response
        return Item(
            id=response.item_id,
            parent=response.inputs[-1] if response.inputs else response.parent,
            role=Role.ASSISTANT,
            text=self._written.text,
            status=ItemStatus.COMPLETED if finish is Finish.STOP else ItemStatus.INCOMPLETE,
            response_id=response.id,
            created_at=int(time.time()),
            parts=self._written.parts,
        )

    def _stop_generating(self) -> None:
        self._over.set()
        self._place.set()
        if self._generation is not None:
            self._generation.stop()
