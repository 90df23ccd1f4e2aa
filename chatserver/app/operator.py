"""`chatserver keys` and `chatserver usage`: an operator's commands on the store, which need not be running."""

from __future__ import annotations

import sys
from typing import Any

import uvloop

from chatserver.app import store as stores
from chatserver.errors import BadRequest, StartupError
from chatserver.service.operation import operators
from chatserver.settings import Settings, read


def run(command: str, chosen: dict[str, Any]) -> int:
    """Do it, print what it says, and return 0. Raises StartupError for a wrong argument, which it names."""
    limits_spending = operators.limits_spending(chosen)
    try:
        work = operators.work(command, chosen)
    except BadRequest as error:
        raise StartupError(error.message, exit_code=2) from None
    settings = read(**chosen)
    uvloop.run(_operate(settings, work))
    if limits_spending and settings.prices is None:
        print(f"chatserver: {operators.UNPRICED}", file=sys.stderr)
    return 0


async def _operate(settings: Settings, work: operators.Work) -> None:
    async with stores.borrowed(settings) as store:
        print(await work(store.access, store.accounts))
