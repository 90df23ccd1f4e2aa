"""One tape that a test writes, and those who read it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from chatserver.domain.response import Finish, Outcome, Params, Response, Status, Usage
from chatserver.domain.tape import Delta, Ended, Record
from chatserver.ports.turns import NewTurn
from tests.fakes import MemoryStore

END = Outcome(Status.COMPLETED, Finish.STOP, Usage())


def response(number: int = 1) -> Response:
    return Response(f"resp_00{number:030x}", "local", Params("tiny"), 1, item_id=f"msg_00{number:030x}")


class Tape:
    """Writes one tape, a token a record."""

    def __init__(self, store: MemoryStore, number: int = 1) -> None:
        self.store, self.response, self.last = store, response(number), 1

    async def begin(self, watcher: str | None = None) -> None:
        await self.store.turns.begin(NewTurn(self.response, watcher=watcher), queue_bound=9)

    def write(self, count: int, text: str = "x") -> None:
        for _ in range(count):
            self.last += 1
            self.store.add(
                self.response.id, [Record(self.last, Delta((f"{text}{self.last} ",), (self.last,)))]
            )

    def end(self) -> None:
        self.last += 1
        self.store.add(self.response.id, [Record(self.last, Ended(END))])

    def text(self, after: int = 1) -> str:
        return "".join(f"x{n} " for n in range(after + 1, self.last))


async def until(condition: Callable[[], object]) -> None:
    """Wait for what other tasks do."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.002)


async def read(reader) -> str:
    text = ""
    while not reader.ended:
        text += "".join(r.body.text for r in await reader.batch() if isinstance(r.body, Delta))
    await reader.aclose()
    return text
