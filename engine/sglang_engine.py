"""The real engine: SGLang behind the engine contract.

start      import and launch in a thread of our own, so that the event loop goes on answering;
           the thread lives until `close`, because the schedulers die with it
generate   one SGLang request; a consumer that goes away aborts it at once
a dead     scheduler makes every request in flight raise EngineLost, and `health` say so;
scheduler  the host restarts the engine process (SGLang would kill it)
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import signal
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from engine.checks import check_request
from engine.contract import (
    Chunk,
    EngineError,
    EngineLost,
    GenerateRequest,
    Health,
    ModelCard,
    ModelUnusable,
    RequestRefused,
    Tokenizer,
)
from engine.models import folder
from engine.requests import Progress, raise_refusal, sampling_arguments
from engine.settings import EngineSettings, prepare_environment, server_args, window
from engine.tokenizer import HubTokenizer

if TYPE_CHECKING:
    from engine.runtime import Runtime

_PING_SECONDS = 2.0
"""How long `health` waits for an idle scheduler."""
_SILENCE_SECONDS = 120.0
"""A scheduler with work that says nothing for so long is taken for dead; a step takes seconds at most."""


class SglangEngine:
    """`engine.contract.Engine` on `sglang.Engine`. See the contract for what the methods promise.

    While it is open it owns the process's SIGQUIT handler: SGLang's schedulers send that signal to
    their parent when they fail.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._launcher = ThreadPoolExecutor(1, thread_name_prefix="sglang-launch")
        self._runtime: Runtime | None = None
        self._receiver: asyncio.Task[None] | None = None
        self._card: ModelCard | None = None
        self._tokenizer: HubTokenizer | None = None
        self._lost: asyncio.Future[str] | None = None
        self._running: set[str] = set()
        self._ping: asyncio.Task[Any] | None = None
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
        """Load the model without blocking the event loop; about 15 s on two quiet cores."""
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
        report(f"loading {settings.name}")
        arguments = server_args(settings, context)
        launching = loop.run_in_executor(self._launcher, lambda: module.Runtime(**arguments))
        runtime: Runtime = await self._unless_lost(launching, f"loading {settings.model_path}")
        self._runtime = runtime
        self._receiver = receiver = runtime.receive_in(loop)
        receiver.add_done_callback(self._receiver_ended)
        self._card = _card(settings, config, context, runtime, tokenizer)
        report(f"{settings.name} is ready")

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Run one request, yielding a chunk per scheduler step; the last has `finish`."""
        self._require_runnable(request.request_id, request.ids, request.sampling.max_tokens)
        progress = Progress()
        sampling = sampling_arguments(request.sampling, self.card.end_ids)
        async with contextlib.aclosing(
            self._run(request.request_id, request.ids, sampling, request.salt, stream=True)
        ) as outputs:
            async for output in outputs:
                if chunk := progress.chunk(output):
                    yield chunk

    async def abort(self, request_id: str) -> None:
        """Ask the scheduler to drop a request within one step. Unknown ids are ignored."""
        if self._runtime is not None and request_id in self._running:
            self._runtime.manager.abort_request(request_id)

    async def prefill(self, request_id: str, ids: Sequence[int], salt: str = "") -> int:
        """Put a prefix into the KV cache without generating; return how many tokens were cached already."""
        self._require_runnable(request_id, ids, 0)
        sampling = {"max_new_tokens": 0, "temperature": 0.0}
        cached = 0
        async with contextlib.aclosing(self._run(request_id, ids, sampling, salt, stream=True)) as outputs:
            async for output in outputs:
                raise_refusal(output["meta_info"])
                cached = output["meta_info"].get("cached_tokens", cached)
        return cached

    async def health(self) -> Health:
        """Return a snapshot; never raises. Takes at most 2 s."""
        if self._runtime is None or self._card is None:
            return Health(False, 0, 0, 0, 0, "closed" if self._closed else "starting")
        capacity = self._card.kv_tokens
        if reason := self._why_lost():
            return Health(False, 0, 0, 0, capacity, reason)
        detail = await self._silence()
        try:
            loads = self._runtime.manager.load_snapshot_reader.read_all()
        except (OSError, ValueError) as error:
            return Health(False, len(self._running), 0, 0, capacity, f"no load snapshot: {error}")
        return Health(
            ok=not detail,
            running=sum(load.num_running_reqs for load in loads),
            queued=sum(load.num_waiting_reqs for load in loads),
            kv_used=sum(load.num_used_tokens for load in loads),
            kv_tokens=capacity,
            detail=detail,
        )

    async def close(self) -> None:
        """Stop the schedulers and free everything. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._lose("the engine was closed")
        loop = asyncio.get_running_loop()
        for task in (self._ping, self._receiver):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._runtime is not None:
            await loop.run_in_executor(self._launcher, self._runtime.end)
        # Not earlier: schedulers that notice the end of another send their signal.
        if threading.current_thread() is threading.main_thread():
            loop.remove_signal_handler(signal.SIGQUIT)
        # Nor this: the schedulers are bound to the life of the thread.
        self._launcher.shutdown(wait=False)

    async def _run(
        self, request_id: str, ids: Sequence[int], sampling: dict[str, Any], salt: str, *, stream: bool
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield SGLang's outputs for one request; leaving early aborts it."""
        from engine.runtime import generate_input  # noqa: PLC0415 — imported by `start` already

        assert self._runtime is not None
        manager = self._runtime.manager
        source = generate_input(request_id, list(ids), sampling, salt, stream)
        outputs = manager.generate_request(source, None)
        self._running.add(request_id)
        try:
            while (output := await self._next(outputs)) is not None:
                yield output
        except ValueError as error:
            raise RequestRefused(str(error)) from error
        finally:
            self._running.discard(request_id)
            # A request that ended is unknown to SGLang by now, and the abort does nothing.
            if self._why_lost() is None:
                manager.abort_request(request_id)
            await outputs.aclose()

    async def _next(self, outputs: AsyncIterator[Any]) -> dict[str, Any] | None:
        """Return the next output, None at the end. Raises EngineLost as soon as the engine is lost."""
        assert self._lost is not None
        step: asyncio.Future[Any] = asyncio.ensure_future(anext(outputs, None))
        try:
            await asyncio.wait((step, self._lost), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not step.done():
                step.cancel()
                await asyncio.gather(step, return_exceptions=True)
        if step.cancelled() or (self._lost.done() and not step.done()):
            raise EngineLost(f"{self._why_lost()}; the answer can be continued on a new engine")
        return step.result()

    def _require_runnable(self, request_id: str, ids: Sequence[int], max_tokens: int) -> None:
        """Raise RequestRefused or EngineLost for what SGLang would truncate, hang on or crash on."""
        card = self.card
        if reason := self._why_lost():
            raise EngineLost(f"{reason}; restart the engine")
        check_request(card, request_id, ids, max_tokens)
        if request_id in self._running:
            raise RequestRefused(f"request {request_id} is running already")

    async def _silence(self) -> str:
        """Return why the scheduler is taken for stuck, or an empty string."""
        assert self._runtime is not None
        manager = self._runtime.manager
        if self._running:
            silent = time.time() - manager.last_receive_tstamp
            return f"the scheduler said nothing for {silent:.0f} s" if silent > _SILENCE_SECONDS else ""
        if self._ping is None or self._ping.done():
            self._ping = asyncio.create_task(manager.get_internal_state(), name="sglang-ping")
        # Not cancelled when late: SGLang's communicator would give its answer to the next ping.
        done, _ = await asyncio.wait((self._ping,), timeout=_PING_SECONDS)
        return "" if done else f"the idle scheduler did not answer within {_PING_SECONDS:.0f} s"

    def _watch_schedulers(self, loop: asyncio.AbstractEventLoop) -> None:
        if threading.current_thread() is threading.main_thread():
            loop.add_signal_handler(signal.SIGQUIT, self._lose, "a scheduler process failed")

    def _receiver_ended(self, receiver: asyncio.Task[None]) -> None:
        if not receiver.cancelled():
            self._lose(f"receiving from the scheduler failed: {receiver.exception()!r}")

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


def _card(
    settings: EngineSettings,
    config: dict[str, Any],
    context: int,
    runtime: Runtime,
    tokenizer: HubTokenizer,
) -> ModelCard:
    info = runtime.scheduler_info
    chosen = (
        folder.read_json(path) if (path := settings.model_path / "generation_config.json").is_file() else {}
    )
    page = runtime.server_args.page_size or 1
    return ModelCard(
        name=settings.name,
        aliases=settings.aliases,
        context=context,
        kv_tokens=info["max_total_num_tokens"],
        page=int(page),
        vocab_size=int(config["vocab_size"]),
        end_ids=tokenizer.end_ids,
        template_hash=tokenizer.template_hash,
        temperature=float(chosen.get("temperature") or 1.0),
        top_p=float(chosen.get("top_p") or 1.0),
        top_k=int(chosen.get("top_k") or -1),
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
