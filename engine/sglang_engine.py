"""The real engine: SGLang behind the engine contract.

start      import and launch in a thread of our own, so that the event loop goes on answering;
           the thread lives until `close`, because the schedulers die with it
generate   one SGLang request; a consumer that goes away aborts it at once
a dead     scheduler, or one that says nothing for long, makes every request in flight raise EngineLost, and
scheduler  `health` say so; the host restarts the engine process (SGLang would kill it)
a request  that is given no token for long ends with EngineStalled
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import signal
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from engine.answers import Form, Splitter
from engine.checks import check_release, check_request
from engine.contract import (
    Chunk,
    EngineError,
    EngineLost,
    GenerateRequest,
    Health,
    ModelCard,
    ModelUnusable,
)
from engine.experts import ExpertLoad
from engine.model_card import read_card
from engine.models import folder
from engine.requests import sampling_arguments
from engine.settings import EngineSettings, prepare_environment, server_args, window
from engine.token_contract import Tokenizer
from engine.tokenizer import HubTokenizer

if TYPE_CHECKING:
    from engine.forms import Forms
    from engine.ranks import Ranks
    from engine.runtime import Runtime
    from engine.schedulers import Schedulers


class SglangEngine:
    """`engine.contract.Engine` on `sglang.Engine`. See the contract for what the methods promise.

    While it is open it owns the process's SIGQUIT handler: SGLang's schedulers send that signal to
    their parent when they fail.
    """

    def __init__(self, settings: EngineSettings, ranks: Ranks | None = None) -> None:
        """`ranks`: processes for the schedulers, forked for these settings; None: SGLang spawns them."""
        self._settings = settings
        self._ranks = ranks
        self._launcher = ThreadPoolExecutor(1, thread_name_prefix="sglang-launch")
        self._runtime: Runtime | None = None
        self._receiver: asyncio.Task[None] | None = None
        self._card: ModelCard | None = None
        self._tokenizer: HubTokenizer | None = None
        self._forms: Forms | None = None
        self._lost: asyncio.Future[str] | None = None
        self._schedulers: Schedulers | None = None
        self._watch: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def card(self) -> ModelCard:
        """What is served; valid after `start`."""
        if self._card is None:
            raise EngineError("the engine has not started")
        return self._card

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer; valid after `start`."""
        if self._tokenizer is None:
            raise EngineError("the engine has not started")
        return self._tokenizer

    async def start(self, report: Callable[[str], None]) -> None:
        """Load the model without blocking the event loop: on two quiet cores 3 s with `ranks`, 11 s without."""
        if self._runtime is not None or self._closed:
            raise EngineError("the engine can be started once")
        settings = self._settings
        report(f"reading the tokenizer of {settings.name}")
        loop = asyncio.get_running_loop()
        config = folder.read_json(settings.model_path / "config.json")
        tokenizer = await loop.run_in_executor(self._launcher, HubTokenizer.load, settings.model_path)
        self._tokenizer = tokenizer
        context = window(settings, config)
        prepare_environment(settings)
        self._lost = loop.create_future()
        self._watch_schedulers(loop)
        report("importing SGLang")
        launching = loop.run_in_executor(self._launcher, importlib.import_module, "engine.runtime")
        module = await self._unless_lost(launching, "importing SGLang")
        launching = loop.run_in_executor(self._launcher, importlib.import_module, "engine.forms")
        parsers = await self._unless_lost(launching, "importing SGLang's parsers")
        self._forms = forms = parsers.Forms(tokenizer, settings.extra)
        report(f"loading {settings.name}")
        arguments = {"reasoning_parser": forms.reasoning, **server_args(settings, context)}
        launching = loop.run_in_executor(self._launcher, lambda: module.Runtime(self._ranks, **arguments))
        runtime: Runtime = await self._unless_lost(launching, f"loading {settings.model_path}")
        self._runtime = runtime
        self._receiver = receiver = runtime.receive_in(loop)
        receiver.add_done_callback(self._receiver_ended)
        self._card = read_card(settings, config, context, runtime, tokenizer)
        self._keep_watch(loop, runtime)
        report(f"{settings.name} is ready")

    def splitter(self, form: Form) -> Splitter | None:
        """Return what takes an answer of this form apart, None if it is all text. Raises RequestRefused."""
        if self._forms is None:
            raise EngineError("the engine has not started")
        return self._forms.splitter(form)

    def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Run one request, yielding a chunk per scheduler step; the last has `finish`."""
        schedulers = self._runnable(
            request.request_id, request.ids, request.sampling.max_tokens, request.logprobs
        )
        assert self._forms is not None  # there is a card
        sampling = sampling_arguments(request.sampling, self.card.end_ids)
        sampling |= self._forms.sampling(request.form, request.emitted)
        return schedulers.run(
            request.request_id,
            request.ids,
            sampling,
            request.salt,
            request.logprobs,
            thinks=self._forms.thinks(request.form),
        )

    async def abort(self, request_id: str) -> None:
        """Ask the scheduler to drop a request within one step. Unknown ids are ignored."""
        if self._schedulers is not None:
            self._schedulers.abort(request_id)

    async def prefill(self, request_id: str, ids: Sequence[int], salt: str = "") -> int:
        """Put a prefix into the KV cache without generating; return how many tokens were cached already."""
        schedulers = self._runnable(request_id, ids, 0)
        sampling = {"max_new_tokens": 0, "temperature": 0.0}
        cached = 0
        async with contextlib.aclosing(schedulers.run(request_id, ids, sampling, salt)) as chunks:
            async for chunk in chunks:
                cached = chunk.cached
        return cached

    async def release(self, ids: Sequence[int], keep: int = 0, salt: str = "") -> int:
        """Free cached prefixes from token `keep` on; return how many tokens."""
        check_release(ids, keep)
        if self._settings.extra.get("enable_hierarchical_cache"):
            raise EngineError(
                "HiCache keeps copies in host memory that SGLang frees by age alone: nothing is released"
            )
        return await self._live().release(ids, keep, salt)

    async def health(self) -> Health:
        """Return a snapshot; never raises. Takes at most 2 s."""
        schedulers = self._schedulers
        if schedulers is None or self._card is None:
            return Health(False, 0, 0, 0, 0, "closed" if self._closed else "starting", lost=self._closed)
        # While requests run, the watchdog pings.
        answered = schedulers.running > 0 or await schedulers.ping()
        if reason := self._why_lost():
            return Health(False, 0, 0, 0, self._card.kv_tokens, reason, lost=True)
        try:
            loads = schedulers.loads()
        except (OSError, ValueError) as error:
            return Health(False, schedulers.running, 0, 0, self._card.kv_tokens, f"no load snapshot: {error}")
        return Health(
            ok=answered,
            running=sum(load.num_running_reqs for load in loads),
            queued=sum(load.num_waiting_reqs for load in loads),
            kv_used=sum(load.num_used_tokens for load in loads),
            kv_tokens=self._card.kv_tokens,
            detail="" if answered else "the idle scheduler does not answer",
            kv_cached=schedulers.pool.cached if schedulers.pool else 0,
            kv_leaked=schedulers.pool.leaked if schedulers.pool else 0,
        )

    def expert_load(self) -> ExpertLoad | None:
        """Return which experts and ranks did the work since the start, None for a model without experts."""
        return None if self._runtime is None else self._runtime.expert_load()

    async def close(self) -> None:
        """Stop the schedulers and free everything. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._lose("the engine was closed")
        loop = asyncio.get_running_loop()
        for task in (self._watch, self._receiver):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._runtime is not None:
            for sentinel in self._runtime.sentinels:
                loop.remove_reader(sentinel)
            await loop.run_in_executor(self._launcher, self._runtime.end)
        if self._ranks is not None:
            self._ranks.end()
        # Not earlier: schedulers that notice the end of another send their signal.
        if threading.current_thread() is threading.main_thread():
            loop.remove_signal_handler(signal.SIGQUIT)
        # Nor this: the schedulers are bound to the life of the thread.
        self._launcher.shutdown(wait=False)

    def _runnable(
        self, request_id: str, ids: Sequence[int], max_tokens: int, logprobs: int | None = None
    ) -> Schedulers:
        """Return where to run a request. Raises what SGLang would truncate, hang on or crash on as RequestRefused."""
        card, schedulers = self.card, self._live()
        check_request(card, request_id, ids, max_tokens, logprobs)
        return schedulers

    def _live(self) -> Schedulers:
        """Return the schedulers. Raises EngineLost, EngineError if there are none yet."""
        if reason := self._why_lost():
            raise EngineLost(f"{reason}; restart the engine")
        if self._schedulers is None:
            raise EngineError("the engine has not started")
        return self._schedulers

    def _keep_watch(self, loop: asyncio.AbstractEventLoop, runtime: Runtime) -> None:
        from engine.schedulers import Schedulers  # noqa: PLC0415 — SGLang is imported by now

        assert self._lost is not None
        self._schedulers = Schedulers(runtime, self._settings, self._lost, self._lose)
        self._watch = loop.create_task(self._schedulers.keep_watch(), name="sglang-watchdog")
        self._watch.add_done_callback(self._receiver_ended)
        for sentinel in runtime.sentinels:  # SGLang looks for dead schedulers once a second
            loop.add_reader(sentinel, self._ended, loop, sentinel)

    def _ended(self, loop: asyncio.AbstractEventLoop, sentinel: int) -> None:
        loop.remove_reader(sentinel)
        self._lose("a scheduler process ended")

    def _watch_schedulers(self, loop: asyncio.AbstractEventLoop) -> None:
        if threading.current_thread() is threading.main_thread():
            loop.add_signal_handler(signal.SIGQUIT, self._lose, "a scheduler process failed")

    def _receiver_ended(self, receiver: asyncio.Task[None]) -> None:
        if not receiver.cancelled():
            self._lose(f"{receiver.get_name()} failed: {receiver.exception()!r}")

    def _lose(self, reason: str) -> None:
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(reason)

    def _why_lost(self) -> str | None:
        if self._lost is not None and self._lost.done():
            return self._lost.result()
        return None

    async def _unless_lost(self, launching: asyncio.Future[Any], phase: str) -> Any:
        """Return what a phase of the launch returns. Raises ModelUnusable or EngineError in one line."""
        assert self._lost is not None
        await asyncio.wait(
            (launching, self._lost),
            timeout=self._settings.start_timeout,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if self._lost.done():
            # The constructor notices a dead child by itself and raises; give it the time to say why.
            await asyncio.wait((launching,), timeout=10.0)
        if not launching.done():
            raise EngineError(f"{phase}: {self._why_lost() or 'took too long'}; the log above says more")
        error = launching.exception()
        if isinstance(error, (ValueError, ImportError, AssertionError)):
            raise ModelUnusable(f"{phase}: {_first_line(error)}") from error
        if error is not None:
            raise EngineError(f"{phase}: {_first_line(error)}") from error
        return launching.result()


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
