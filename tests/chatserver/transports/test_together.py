"""Several tapes at once: whoever closes them may be cancelled as they are closed."""

from __future__ import annotations

import asyncio

import pytest

from chatserver.transports.together import Together


class Slow:
    """A reader that takes its time to go."""

    response_id, after, ended = "resp", -1, False

    def __init__(self) -> None:
        self.closed = False

    async def batch(self, timeout=None):
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)

    async def aclose(self) -> None:
        self.closed = True

    def dismiss(self, error) -> None: ...


async def test_a_cancellation_as_it_closes_is_not_lost():
    """And every reader is closed all the same."""
    readers = [Slow(), Slow()]
    together = Together(readers)
    assert await together.batch(0.01) == []
    closing = asyncio.create_task(together.aclose())
    await asyncio.sleep(0.01)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert all(reader.closed for reader in readers)


async def test_one_that_fails_in_an_unforeseen_way_leaves_no_other_open():
    class Broken(Slow):
        async def batch(self, timeout=None):
            raise RuntimeError("broken")

    readers = [Broken(), Broken(), Slow()]
    together = Together(readers)
    with pytest.raises(RuntimeError):
        await together.batch()
    await together.aclose()
    assert all(reader.closed for reader in readers)
