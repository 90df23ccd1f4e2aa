"""One role of the program: its process, restarted whenever it dies.

A *role* is a job that must always be done (store, engine, web); a *life* is one process that does it.
Each life is the leader of its own session and process group, so that whatever it starts can be ended
with it, and a Ctrl-C in the terminal reaches the supervisor alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from chatserver.errors import StartupError
from chatserver.service.supervision.console import Console
from chatserver.service.supervision.orphans import Guardian, follow_parent, kill_group
from chatserver.service.supervision.output import Output
from chatserver.service.supervision.run_folder import RunFolder

CONFIGURATION_EXITS = (2, 3)
"""Exit codes of a process that must not be restarted: a setting, or what it names, is wrong.

Its last line is `chatserver: <what to do>`."""
START_REFUSED = 4
"""Exit code of a process that cannot start as things are. It ends the program unless a life was ready before:
then the machine has changed, and may change back."""

PREFIX = "chatserver: "
LAST_LINES = 20
PROBE_EVERY = 0.5
"""Seconds between probes; the first few follow each other faster."""
PROBE_TIMEOUT = 3.0
DEATH_TIMEOUT = 5.0
"""Seconds that `Role.on_death` may hold up the restart."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one life. `identity` tells the life from the others of its role."""

    command: tuple[str, ...]
    environ: Mapping[str, str]
    identity: str = ""
    pass_fds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a life has come. `detail`: what it is doing, or what it offers once `ready`."""

    ready: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Death:
    """A life has ended unasked. `code`: exit code, or minus the signal number."""

    role: str
    pid: int
    identity: str
    code: int

    @property
    def how(self) -> str:
        """How it ended, in words."""
        if self.code >= 0:
            return f"ended with exit code {self.code}"
        try:
            return f"was ended by {signal.Signals(-self.code).name}"
        except ValueError:  # a real-time signal has no name
            return f"was ended by signal {-self.code}"


async def _nothing(death: Death) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Role:
    """What must always be running.

    `launch` is called for each life. `probe` gets the identity of a life and is asked every half second until
    it is ready; an exception counts as «not yet». `on_death` is awaited before the restart, for a few
    seconds at most. `shown` says which of its lines the console shows; all go to the log. `tries`: lives that
    may end before one was ever ready; then restarting is given up (None: never). `opening`: what a life does
    until it can say so itself.
    """

    name: str
    launch: Callable[[], Launch]
    probe: Callable[[str], Awaitable[Progress]]
    on_death: Callable[[Death], Awaitable[None]] = _nothing
    shown: Callable[[str], bool] = bool
    parent_death: signal.Signals = signal.SIGKILL
    tries: int | None = None
    opening: str = "starting"


class Backoff:
    """Pauses before restarts: `first`, then twice as long each time, at most `cap` seconds.

    A life that was of use for `steady` seconds ends the series: killing a healthy process costs `first`,
    one that dies as soon as it takes up its work is restarted ever more slowly.
    """

    def __init__(self, first: float = 0.2, cap: float = 10.0, steady: float = 1.0) -> None:
        self._first, self._cap, self._steady = first, cap, steady
        self._next = first

    def after(self, ready_for: float) -> float:
        """Return the pause after a life that was ready for so many seconds. Modifies the series."""
        pause = self._first if ready_for >= self._steady else self._next
        self._next = min(self._cap, 2 * pause)
        return pause


class Child:
    """Keeps one role running, from `run` to `stop`."""

    def __init__(
        self,
        role: Role,
        folder: RunFolder,
        console: Console,
        *,
        backoff: Backoff | None = None,
        guardian: Guardian | None = None,
    ) -> None:
        self.role = role
        self.ready = asyncio.Event()
        """Set while a life is ready."""
        self._folder, self._console, self._guardian = folder, console, guardian
        self._backoff = backoff or Backoff()
        self._tries = role.tries
        self._log = folder.log(role.name)
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._stopping = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._ready_at: float | None = None
        self._was_ready = False

    async def run(self) -> None:
        """Start a life, and another whenever it dies, until `stop`. Raises StartupError if that is no use."""
        try:
            while not self._stopping.is_set():
                death = await self._live()
                if not self._stopping.is_set():
                    await self._recover(death)
        finally:
            self._log.close()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask the life to end, and start no other. Its leader alone is told: it knows its own children."""
        self._stopping.set()
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End the life and all it has started, at once."""
        self._stopping.set()
        if self._process is not None:
            kill_group(self._process.pid)

    async def _live(self) -> Death:
        """Run one life to its end; leave nothing of it behind."""
        launch, output = self.role.launch(), Output()
        self._last.clear()
        self._ready_at = None
        started = asyncio.get_running_loop().time()
        self._process = process = await self._spawn(launch, output)
        self._folder.write_pid(self.role.name, process.pid)
        if self._guardian:
            self._guardian.watch(process.pid)
        if self._stopping.is_set():  # while it was being started
            process.terminate()
        reading = asyncio.create_task(self._read(output))
        probing = asyncio.create_task(self._probe(launch.identity, started))
        try:
            code = await process.wait()
        finally:
            probing.cancel()
            self._forget(process.pid)
            await _finish(reading)
        return Death(self.role.name, process.pid, launch.identity, code)

    def _forget(self, pid: int) -> None:
        kill_group(pid)  # what it started may hold its memory, its ports and the other end of our pipe
        if self._guardian:
            self._guardian.release(pid)
        self.ready.clear()
        self._process = None
        self._folder.drop_pid(self.role.name)
        self._console.settle(self.role.name)

    async def _spawn(self, launch: Launch, output: Output) -> asyncio.subprocess.Process:
        try:
            with output.handed_over() as end:
                return await asyncio.create_subprocess_exec(
                    *launch.command,
                    env=dict(launch.environ),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=end,
                    stderr=end,
                    pass_fds=launch.pass_fds,
                    start_new_session=True,
                    preexec_fn=follow_parent(self.role.parent_death),
                )
        except OSError as error:
            reason = f"{launch.command[0]}: {error.strerror}"
            raise StartupError(f"the {self.role.name} cannot be started ({reason}); run make setup") from None

    async def _read(self, output: Output) -> None:
        async for line in output.lines():
            self._last.append(line)
            self._log.write(line)
            # Last words are told once: before the restart, or as what ends the program.
            if self.role.shown(line) and not line.startswith(PREFIX):
                self._console.child(self.role.name, line)

    async def _probe(self, identity: str, started: float) -> None:
        pause = PROBE_EVERY / 16
        while not (progress := await self._asked(identity)).ready:
            self._console.status(self.role.name, progress.detail or self.role.opening)
            pause = min(PROBE_EVERY, 2 * pause)
            await asyncio.sleep(pause)
        self._ready_at = asyncio.get_running_loop().time()
        self._console.settle(self.role.name)
        offer = f": {progress.detail}" if progress.detail else ""
        self._console.line(f"{self.role.name} ready ({self._ready_at - started:.1f} s){offer}")
        self.ready.set()

    async def _asked(self, identity: str) -> Progress:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                return await self.role.probe(identity)
        except Exception as error:  # whatever it is: not yet, and asked again
            log.debug("%s is not ready: %r", self.role.name, error)
            return Progress(ready=False)

    async def _recover(self, death: Death) -> None:
        """Tell of a death and wait before the next life. Raises StartupError if there must be none."""
        self._was_ready |= self._ready_at is not None
        self._tries = None if self._tries is None or self._was_ready else self._tries - 1
        words = next((line for line in reversed(self._last) if line.startswith(PREFIX)), None)
        refused = death.code == START_REFUSED and not self._was_ready
        if death.code in CONFIGURATION_EXITS or refused or self._tries == 0:
            reason = (
                words.removeprefix(PREFIX)
                if words
                else f"the {death.role} {death.how}; its log is {self._log.path}"
            )
            raise StartupError(reason)
        if words:
            self._console.child(death.role, words)
        ready_for = 0.0 if self._ready_at is None else asyncio.get_running_loop().time() - self._ready_at
        pause = self._backoff.after(ready_for)
        self._console.line(
            f"{death.role} {death.how}; starting it again in {pause:g} s (log: {self._log.path})"
        )
        try:
            async with asyncio.timeout(DEATH_TIMEOUT):
                await self.role.on_death(death)
        except Exception as error:  # the restart matters more; leases cover the rest
            log.warning("after the death of %s: %r", death.role, error)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), pause)


async def _finish(reading: asyncio.Task[None]) -> None:
    """Let the reader see the end of the pipe; do not wait for a stranger who holds it open."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(reading, timeout=1.0)
