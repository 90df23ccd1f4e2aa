"""SGLang's Engine, fitted to be embedded. Importing this module imports SGLang, which takes seconds.

What is changed, and why:

- No detokenizer process. Ids are what we store and relay; text is made by `engine.tokenizer`. The
  scheduler sends its ids straight to us: a hop less in each step, and a process less to start. The
  scheduler keeps its own tokenizer, for stop strings.
- No signal handlers. SGLang's would take SIGTERM from the host program, and its answer to a dead
  child is to kill the whole process tree.
- Shutdown ends the processes that SGLang started, not every child of the host program.
- Schedulers may have been forked before (`engine.ranks`); SGLang would spawn them.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import multiprocessing
import warnings
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil

from engine.experts import ExpertFiles, ExpertLoad
from engine.imports import without_collections
from engine.questions import Questions
from engine.ranks import Ranks

_policy = asyncio.get_event_loop_policy()
with warnings.catch_warnings(), without_collections():
    warnings.simplefilter("ignore")  # which GPUs and kernels SGLang did not find
    from engine.child import run_scheduler  # first: it installs the torchvision shim

    # isort: split
    from sglang.srt.entrypoints.engine import (
        Engine,
        SchedulerInitResult,
        _scheduler_died_error,
        _wait_for_scheduler_ready,
    )
    from sglang.srt.managers.load_snapshot import shm_path_for
    from sglang.srt.runtime_context import get_parallel
    from sglang.srt.utils import kill_process_tree
    from sglang.utils import TypeBasedDispatcher

    from engine import scheduler_messages as messages
    from engine.exchange import Exchange
asyncio.set_event_loop_policy(_policy)  # SGLang sets uvloop's at import

_KILL_SECONDS = 20.0


class Runtime(Engine):
    """SGLang's Engine without detokenizer, signal handlers and exit hook.

    The constructor blocks until the schedulers are ready. It may run in any thread. Without `ranks` the thread must
    live as long as the schedulers: Linux ends them when the thread that started them ends (PR_SET_PDEATHSIG).
    """

    run_scheduler_process_func = staticmethod(run_scheduler)

    def __init__(self, ranks: Ranks | None = None, **server_args: Any) -> None:
        self._placement_group = ranks  # SGLang hands it to the launch below, as it does Ray's
        self._expert_files = files = ExpertFiles()
        with _own_logging(), contextlib.ExitStack() as undo:
            undo.callback(files.close)
            try:
                with files.announced():
                    super().__init__(**server_args)
            finally:
                atexit.unregister(self.shutdown)  # it would kill every child of the host program
            files.open()
            undo.pop_all()

    @classmethod
    def _launch_scheduler_processes(
        cls,
        server_args: Any,
        port_args: Any,
        run_scheduler_process_func: Any,
        *,
        placement_group: Ranks | None = None,
    ) -> Any:
        _remove_socket(port_args.detokenizer_ipc_name)
        port_args.detokenizer_ipc_name = port_args.tokenizer_ipc_name
        if placement_group is None:
            return super()._launch_scheduler_processes(server_args, port_args, run_scheduler_process_func)
        connections, processes = placement_group.launch(server_args, port_args)
        infos: list[dict[str, Any]] = []
        return SchedulerInitResult(
            scheduler_infos=infos,
            all_child_pids=placement_group.pids,
            wait_for_ready=lambda: infos.extend(_infos(connections, processes)),
        ), processes

    @classmethod
    def _launch_detokenizer_subprocesses(
        cls, server_args: Any, port_args: Any, run_detokenizer_process_func: Any
    ) -> Any:
        return [], []

    @property
    def manager(self) -> Any:
        """Return SGLang's tokenizer manager; requests go past it, see `engine.exchange`."""
        return self.tokenizer_manager

    @property
    def scheduler_info(self) -> dict[str, Any]:
        """Return what the first scheduler said when it was ready."""
        return self._scheduler_init_result.scheduler_infos[0]

    @property
    def sentinels(self) -> list[int]:
        """Return a descriptor for each scheduler of this machine that becomes readable when the process has ended."""
        own = self.get_all_child_pids()
        return [process.sentinel for process in multiprocessing.active_children() if process.pid in own]

    def expert_load(self) -> ExpertLoad | None:
        """Return what the schedulers of this machine routed to which experts, None without experts."""
        return self._expert_files.read()

    def receive_in(self, loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
        """Start taking the schedulers' messages in `loop`; the task ends only by an error or cancellation.

        It replaces SGLang's `auto_create_handle_loop`, which installs signal handlers.
        """
        self.manager.event_loop = loop
        self.exchange = Exchange(self.manager)
        self._questions = Questions(self.manager._dispatch_to_scheduler, get_parallel().num_dp_ranks)
        self.manager._result_dispatcher += TypeBasedDispatcher(
            [(kind, self._questions.answered) for kind in (messages.ReleaseReqOutput, messages.PoolReqOutput)]
        )
        return loop.create_task(self.exchange.receive(), name="sglang-receive")

    def processor_seconds(self) -> float:
        """Return how much processor time this machine's schedulers have used so far."""
        used = 0.0
        for pid in self.get_all_child_pids():
            with contextlib.suppress(psutil.Error):  # it has ended, which is noticed elsewhere
                times = psutil.Process(pid).cpu_times()
                used += times.user + times.system
        return used

    async def release(self, ids: Sequence[int], keep: int, salt: str, timeout: float) -> int:
        """Free what is cached from token `keep` on (see `engine.release`); return the tokens. Raises TimeoutError."""
        question = messages.ReleaseReqInput(ids=list(ids), keep=keep, salt=salt or None)
        return sum(answer.tokens for answer in await self._questions.ask(question, timeout))

    async def pool(self, timeout: float) -> messages.PoolState | None:
        """Return how the KV pool is divided, None while something runs. Raises TimeoutError."""
        return messages.pool_state(await self._questions.ask(messages.PoolReqInput(), timeout))

    def end(self) -> None:
        """End the schedulers, close the sockets and remove what they left. Blocks for up to 20 s a scheduler."""
        manager = self.manager
        if manager._subprocess_watchdog is not None:
            manager._subprocess_watchdog.stop()
        for pid in self.get_all_child_pids():
            kill_process_tree(pid, wait_timeout=None)  # all at once: ranks fail loudly when one is missing
        for process in multiprocessing.active_children():
            if process.pid in self.get_all_child_pids():
                process.join(_KILL_SECONDS)
        sockets: tuple[Any, ...] = (
            manager.recv_from_detokenizer,
            manager.send_to_scheduler,
            self.send_to_rpc,
        )
        for socket in sockets:
            if socket is not None:
                socket.close(linger=0)
        manager.load_snapshot_reader.close()
        Path(shm_path_for(self.port_args.instance_id)).unlink(missing_ok=True)
        for name in vars(self.port_args).values():
            _remove_socket(name)
        self._expert_files.close()


def _infos(connections: list[Connection], processes: list[BaseProcess]) -> list[dict[str, Any]]:
    """Return what the schedulers say when they are ready. Raises RuntimeError that names the one that died.

    A rank that loses another one may end before SGLang looks, which then names the wrong one. What a signal ended
    did not end because of the others.
    """
    try:
        return _wait_for_scheduler_ready(connections, processes)
    except RuntimeError as error:
        for rank, process in enumerate(processes):
            if (process.exitcode or 0) < 0:
                raise _scheduler_died_error(rank, process) from error
        raise


def _remove_socket(name: object) -> None:
    """Remove the file of an `ipc://` address, which SGLang leaves behind."""
    if isinstance(name, str) and name.startswith("ipc://"):
        Path(name.removeprefix("ipc://")).unlink(missing_ok=True)


@contextlib.contextmanager
def _own_logging() -> Iterator[None]:
    """Keep the root logger as the host set it; SGLang's children configure their own."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    for handler in handlers:
        root.removeHandler(handler)  # SGLang would close it
    launch = logging.getLogger("sglang.srt.entrypoints.engine")
    launch.addFilter(_not_about_signals)
    try:
        yield
    finally:
        launch.removeFilter(_not_about_signals)
        for handler in root.handlers[:]:
            root.removeHandler(handler)
        for handler in handlers:
            root.addHandler(handler)
        root.setLevel(level)


def _not_about_signals(record: logging.LogRecord) -> bool:
    """Drop the warning that SGLang's signal handler is missing: that is meant."""
    return "Signal handler" not in record.msg
