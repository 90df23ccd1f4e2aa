"""SGLang's scheduler processes, forked from a process that has imported SGLang already.

SGLang spawns its schedulers, and each imports everything anew: seconds, and hundreds of megabytes that no two
processes share. A fork costs milliseconds and shares what was imported. It is safe only where nothing has
begun that a fork would cut in two, so the order is fixed:

    import SGLang ── compiled kernels ── fork ──┬── event loop, threads, sockets, the engine
    (one thread, no OpenMP team, no GPU)        └── each rank waits for its arguments, then runs a scheduler

On GPUs, whose contexts do not survive a fork, and off Linux, `fork` returns None and SGLang spawns.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import signal
import sys
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from engine.imports import without_collections
from engine.settings import EngineSettings, prepare_environment

_LAUNCH = "engine.runtime"
"""Importing this imports SGLang."""
_END_SECONDS = 5.0


class Ranks:
    """Forked processes that wait to become schedulers; launched once, or ended."""

    def __init__(self, count: int) -> None:
        self._processes: list[BaseProcess] = []
        self._connections: list[Connection] = []
        for _ in range(count):
            ours, theirs = multiprocessing.Pipe()
            self._connections.append(ours)
            process = multiprocessing.get_context("fork").Process(
                target=_wait, args=(theirs, tuple(self._connections), os.getpid()), name="scheduler"
            )
            process.start()
            theirs.close()
            self._processes.append(process)

    @property
    def pids(self) -> list[int]:
        """Process ids, in the order of the ranks."""
        return [process.pid for process in self._processes if process.pid is not None]

    def launch(self, server_args: Any, port_args: Any) -> tuple[list[Connection], list[BaseProcess]]:
        """Have each process run a scheduler; return the connections on which they say that they are ready.

        `server_args`, `port_args`: SGLang's, as pickled for a spawned scheduler. Call it once.
        """
        for rank, connection in enumerate(self._connections):
            connection.send((dict(os.environ), server_args, port_args, rank))
        return self._connections, self._processes

    def end(self) -> None:
        """End the processes, whatever they do. Idempotent; blocks for up to 5 s a process."""
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join(_END_SECONDS)


def fork(settings: EngineSettings) -> Ranks | None:
    """Import SGLang here, fork one process a rank, return them; None where the schedulers must be spawned.

    Call it in a process that has one thread and no event loop. Takes seconds. Modifies the environment as
    `prepare_environment` does. Raises ImportError as SGLang's import does.
    """
    if settings.device != "cpu" or sys.platform != "linux":
        return None
    prepare_environment(settings)
    with without_collections():  # nor do collections visit, and so copy, the pages that are shared
        importlib.import_module(_LAUNCH)
        importlib.import_module("sglang.srt.managers.scheduler")
        from engine.cpu import portable  # noqa: PLC0415 — after SGLang's import

        portable.preload()
    sys.stdout.flush()
    sys.stderr.flush()
    return Ranks(settings.tp)


def _wait(theirs: Connection, others: tuple[Connection, ...], parent: int) -> None:
    """In a forked process: wait for arguments, then run a scheduler until it ends."""
    from sglang.srt.utils import kill_itself_when_parent_died  # noqa: PLC0415 — imported before the fork

    kill_itself_when_parent_died()
    if os.getppid() != parent:
        return  # it died before the call above
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in a terminal is the parent's to handle
    logging.getLogger().handlers.clear()  # the parent's; SGLang configures its own
    for connection in others:
        connection.close()
    try:
        environ, server_args, port_args, rank = theirs.recv()
    except EOFError:
        return  # the parent ended them, or has ended
    os.environ.update(environ)
    from engine.child import run_scheduler  # noqa: PLC0415 — as above

    run_scheduler(server_args, port_args, rank, rank, 0, None, theirs)
