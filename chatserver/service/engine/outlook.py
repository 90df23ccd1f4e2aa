"""The engine role's answers about prompts: what is warm of one, making it so, freeing what is gone, how long it is."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable

from chatserver.domain.response import Failure
from chatserver.errors import ChatServerError, NotFound, Unavailable
from chatserver.ports.caches import CacheReport, Caches, Count, Counted, Look, Release, Warm
from chatserver.service.engine.layout import Ids
from chatserver.service.engine.prefixes import Prefixes
from chatserver.service.engine.prompting import PromptBuilder
from chatserver.service.engine.wanted import Prefix
from engine.contract import EngineError

log = logging.getLogger(__name__)

MAX_AT_ONCE = 16
"""Commands that are looked after at a time; past it they are dropped: whoever asked hears nothing, and says so."""
MAX_RELEASES = 1024
"""The same for conversations that are gone; what is dropped goes by its age."""
MAX_COUNTS = 256
"""The same for prompts that are counted."""
_MOST: dict[type, int] = {Release: MAX_RELEASES, Count: MAX_COUNTS}
WARM_INTERVAL = 5.0
"""Seconds for which a conversation that was just made warm is not looked at again."""
MAX_RECENT = 1024


class Outlook:
    """Obeys `Warm`, `Look`, `Release` and `Count` for one engine."""

    def __init__(
        self,
        engine_id: str,
        prompts: PromptBuilder,
        prefixes: Prefixes,
        caches: Caches,
        salt: Callable[[str], str],
        *,
        page: int,
    ) -> None:
        self._engine_id = engine_id
        self._prompts = prompts
        self._prefixes = prefixes
        self._caches = caches
        self._salt = salt
        self._page = page
        self._tasks: set[asyncio.Task[None]] = set()
        self._recent: OrderedDict[str, float] = OrderedDict()

    def obey(self, command: Warm | Look | Release | Count) -> None:
        """Begin to obey; never blocks."""
        if isinstance(command, Count) and command.engine_id != self._engine_id:
            return
        most = _MOST.get(type(command), MAX_AT_ONCE)
        if len(self._tasks) >= most or (isinstance(command, Warm) and self._is_recent(command)):
            return
        task = asyncio.create_task(self._obey(command), name="outlook")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Drop what is not answered yet."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _is_recent(self, command: Warm) -> bool:
        now = time.monotonic()
        if now - self._recent.get(command.conversation, float("-inf")) < WARM_INTERVAL:
            return True
        self._recent[command.conversation] = now
        self._recent.move_to_end(command.conversation)
        if len(self._recent) > MAX_RECENT:
            self._recent.popitem(last=False)
        return False

    async def _obey(self, command: Warm | Look | Release | Count) -> None:
        try:
            if isinstance(command, Count):
                await self._count(command)
                return
            if isinstance(command, Release):
                await self._release(command)
                return
            upcoming = await self._prompts.upcoming_of(command.tenant, command.conversation)
            if upcoming is None:
                return
            salt = self._salt(command.tenant)
            if isinstance(command, Warm):
                self._prefixes.want(Prefix(command.conversation, salt, upcoming.ids, upcoming.cut))
                return
            warm = self._prefixes.warm(salt, command.conversation, upcoming.ids)
            report = CacheReport(self._engine_id, len(upcoming.ids), warm, self._page, upcoming.cut)
            await self._caches.answer(command, report)
        except NotFound:
            pass  # deleted since it was asked for; nobody waits for the answer
        except Unavailable as error:
            log.warning("cannot tell what is asked of %s (%s)", command.conversation, error.message)
        except EngineError as error:
            log.warning("cannot free what %s holds: %s", command.conversation, error)
        except Exception:
            log.exception("cannot obey %s", command)

    async def _count(self, command: Count) -> None:
        """Say how many tokens a prompt has, or why that cannot be said."""
        try:
            tokens = await self._prompts.count(
                command.tenant, command.params, command.conversation, command.leaf
            )
            answer = Counted(tokens)
        except ChatServerError as error:
            failure = Failure(error.code, error.message, error.param, error.status, error.kind)
            answer = Counted(failure=failure)
        await self._caches.counted(command, answer)

    async def _release(self, command: Release) -> None:
        """Free what belongs to nobody now, and say how much that was."""
        conversation, salt = command.conversation, self._salt(command.tenant)
        kept: Ids = ()
        gone: set[str | None] | None = None  # None: whatever is known by the time that it is freed
        try:
            upcoming = await self._prompts.upcoming_of(command.tenant, conversation)
            if upcoming is not None and not command.everything:
                leaves = {known.leaf for known in self._prefixes.known(salt, conversation)}
                there = await self._prompts.still_there(command.tenant, conversation, leaves)
                kept, gone = upcoming.ids, (leaves - there) | {None}
        except NotFound:
            pass  # all of it is gone
        freed = await self._prefixes.free(
            salt, conversation, lambda known: gone is None or known.leaf in gone, kept
        )
        await self._caches.released(command, self._engine_id, freed)
