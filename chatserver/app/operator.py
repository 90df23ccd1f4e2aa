"""`chatserver keys` and `chatserver usage`: an operator's commands on the store, which need not be running."""

from __future__ import annotations

from typing import Any

import uvloop

from chatserver.app import store as stores
from chatserver.errors import BadRequest, StartupError
from chatserver.service.operation import operators
from chatserver.settings import read


def run(command: str, chosen: dict[str, Any]) -> int:
    """Do it, print what it says, and return 0. Raises StartupError for a wrong argument, which it names."""
    try:
        work = operators.work(command, chosen)
    except BadRequest as error:
        raise StartupError(error.message, exit_code=2) from None
    uvloop.run(_operate(chosen, work))
    return 0


async def _operate(chosen: dict[str, Any], work: operators.Work) -> None:
    async with stores.borrowed(read(**chosen)) as store:
        print(await work(store.access, store.accounts))
