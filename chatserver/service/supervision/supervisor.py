"""Runs the whole program on one machine: the store, then an engine and web, each restarted when it dies.

    start    store ─ready→ web ┐
             engine ───────────┴→ «Chat at http://…»
    end      web, engine: SIGTERM ─drain→ SIGKILL to their groups → store: SIGTERM

The store goes last, so that whatever the others still have to say is in its append-only file.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Iterator, Sequence

from chatserver.errors import StartupError
from chatserver.service.supervision.child import Child, Role
from chatserver.service.supervision.console import Console
from chatserver.service.supervision.orphans import Guardian, follow_parent
from chatserver.service.supervision.run_folder import RunFolder

STORE_TIMEOUT = 120.0
"""Seconds in which the store must be ready: it reads its append-only file first."""
STORE_GRACE = 15.0
"""Seconds in which the store must have written everything."""
UNREADY_GRACE = 2.0
"""Seconds for a process that was not ready: it has no answers to finish, and may be deaf while it loads."""
SPIN_EVERY = 0.1


class Supervisor:
    """Starts the roles, keeps them running, and ends them in order.

    `store` is None if a store outside is used. `address`: where `web` can be opened. `drain`: seconds that
    engine and web may finish what they have once an end is asked for.
    """

    def __init__(
        self,
        *,
        store: Role | None,
        engine: Role,
        web: Role,
        folder: RunFolder,
        console: Console,
        address: str,
        drain: float,
    ) -> None:
        self._console, self._address, self._drain = console, address, drain
        self._guardian = None if follow_parent(signal.SIGKILL) else Guardian()

        def child(role: Role) -> Child:
            return Child(role, folder, console, guardian=self._guardian)

        self._store = child(store) if store else None
        self._engine, self._web = child(engine), child(web)
        self._tasks: dict[Child, asyncio.Task[None]] = {}
        self._asked, self._hurried = asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        """Run until SIGINT, SIGTERM or SIGHUP; return once every process has ended.

        Raises StartupError if a role cannot start, after ending the others.
        """
        spinning = asyncio.create_task(self._spin())
        announcing: asyncio.Task[None] | None = None
        with self._signals():
            try:
                if self._store:
                    self._start(self._store)
                self._start(self._engine)  # before the store is ready: it has much to import first
                if self._store and not await self._while_running(self._store_ready(self._store)):
                    return
                self._start(self._web)
                announcing = asyncio.create_task(self._announce())
                await self._while_running(asyncio.Event().wait())
            finally:
                spinning.cancel()
                if announcing:
                    announcing.cancel()
                self._console.close()
                await self._end()

    def _start(self, child: Child) -> None:
        self._tasks[child] = asyncio.create_task(child.run(), name=child.role.name)

    async def _while_running(self, work: Awaitable[object]) -> bool:
        """Wait for `work`; return False if an end is asked for first. Raises what a child raised."""
        doing, asked = asyncio.ensure_future(work), asyncio.ensure_future(self._asked.wait())
        try:
            await asyncio.wait({doing, asked, *self._tasks.values()}, return_when=asyncio.FIRST_COMPLETED)
            for task in self._tasks.values():
                if task.done():
                    task.result()
            if doing.done():
                doing.result()
            return not asked.done()
        finally:
            doing.cancel()
            asked.cancel()

    async def _store_ready(self, store: Child) -> None:
        try:
            async with asyncio.timeout(STORE_TIMEOUT):
                await store.ready.wait()
        except TimeoutError:
            raise StartupError(f"the store was not ready within {STORE_TIMEOUT:g} s; see its log") from None

    async def _announce(self) -> None:
        await self._web.ready.wait()
        if not self._engine.ready.is_set():
            self._console.headline(f"Chat at {self._address} (the model is still loading)")
            await self._engine.ready.wait()
        self._console.headline(f"Chat at {self._address} (Ctrl-C ends it)")

    async def _end(self) -> None:
        workers = [child for child in (self._web, self._engine) if child in self._tasks]
        await self._end_of(workers, self._drain)
        if self._store:
            await self._end_of([self._store], STORE_GRACE)
        if self._guardian:
            self._guardian.close()

    async def _end_of(self, children: Sequence[Child], grace: float) -> None:
        """End `children` within `grace` seconds, at once when hurried."""
        tasks = {self._tasks[child] for child in children}
        if not tasks:
            return
        for child in children:
            child.stop()
            if not child.ready.is_set():
                asyncio.get_running_loop().call_later(min(grace, UNREADY_GRACE), child.kill)
        ending = asyncio.ensure_future(asyncio.wait(tasks, timeout=grace))
        hurried = asyncio.ensure_future(self._hurried.wait())
        await asyncio.wait({ending, hurried}, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        for child in children:
            child.kill()
        await asyncio.gather(
            ending, *tasks, return_exceptions=True
        )  # what they raised, `run` is raising already

    async def _spin(self) -> None:
        while True:
            await asyncio.sleep(SPIN_EVERY)
            self._console.tick()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Ask for the end on the first signal, hurry on the second."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self._on_signal)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        if self._asked.is_set():
            self._hurried.set()
            return
        self._asked.set()
        self._console.line("ending; answers in progress have a moment left (Ctrl-C again: at once)")
