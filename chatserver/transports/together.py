"""Several tapes read at once: the answers to one Chat Completions request with `n` above 1."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from chatserver.domain.response import Outcome
from chatserver.domain.tape import Record
from chatserver.errors import ChatServerError
from chatserver.service.web.reader import Reader, outcome_in
from chatserver.transports import sse


class Together:
    """Reads tapes side by side, so that none of them waits for another. Close it in the end."""

    def __init__(self, readers: Sequence[Reader]) -> None:
        self._readers = readers
        self._reading: dict[asyncio.Task[list[Record]], int] = {}
        self._outcomes: dict[int, Outcome] = {}

    @property
    def ended(self) -> bool:
        """Whether all have ended."""
        return not self._reading and all(reader.ended for reader in self._readers)

    async def batch(self, timeout: float | None = None) -> list[tuple[int, Record]]:
        """Return what came first, each record with its tape's index; [] after `timeout` seconds without any.

        Raises what a reader raises.
        """
        busy = set(self._reading.values())
        for index, reader in enumerate(self._readers):
            if index not in busy and not reader.ended:
                self._reading[asyncio.ensure_future(reader.batch())] = index
        done, _ = await asyncio.wait(self._reading, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        found = []
        for task in done:
            index = self._reading.pop(task)
            records = task.result()
            if outcome := outcome_in(records):
                self._outcomes[index] = outcome
            found += [(index, record) for record in records]
        return found

    async def outcomes(self) -> list[Outcome] | None:
        """Read for PING seconds at most; return how all have ended, in their order, or None."""
        deadline = asyncio.get_running_loop().time() + sse.PING
        while not self.ended:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return None
            await self.batch(left)
        return [self._outcomes[index] for index in range(len(self._readers))]

    async def events(
        self,
        opening: Sequence[Record],
        encode: Callable[[int, Record], bytes],
        on_error: Callable[[ChatServerError], bytes],
    ) -> AsyncIterator[bytes]:
        """Yield what all say, encoded. `opening`: what was read of the first one already."""
        try:
            yield b"".join([encode(0, record) for record in opening])
            while not self.ended:
                yield b"".join([encode(index, record) for index, record in await self.batch()])
        except ChatServerError as error:
            yield on_error(error)

    def dismiss(self, error: ChatServerError) -> None:
        """Make what is read next raise `error`."""
        for reader in self._readers:
            reader.dismiss(error)

    async def aclose(self) -> None:
        """Stop reading."""
        for task in self._reading:
            task.cancel()
        try:
            await asyncio.gather(*self._reading, return_exceptions=True)
        finally:
            self._reading.clear()
            for reader in self._readers:
                await reader.aclose()
