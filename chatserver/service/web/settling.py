"""The web role's bookkeeping: bills are settled, and holds that nobody needs any more are given back.

Every web process does it; whoever comes second finds it done. A refusal does not wait for this: it looks first.
"""

from __future__ import annotations

import asyncio
import logging

from chatserver.errors import ChatServerError
from chatserver.ports.accounts import Accounts
from chatserver.service.web.rounds import rounds

log = logging.getLogger(__name__)

INTERVAL = 0.5
"""Seconds between two looks at the bills."""
REVIEW_EVERY = 10
"""Looks after which overdue holds are looked at, too."""


class Settling:
    """Runs from `start` to `close`."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._task: asyncio.Task[None] | None = None
        self._looks = 0

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(rounds(self._look, INTERVAL, "settling"), name="settling")

    async def close(self) -> None:
        """End; what is not settled yet, others settle."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        try:
            while await self._accounts.settle():
                pass
            if self._looks % REVIEW_EVERY == 0:
                await self._accounts.review()
        except ChatServerError as error:
            log.warning("accounts are not up to date: %s", error.message)
        self._looks += 1
