"""One look for all who ask at once, and a new one for who asks when it is over."""

from __future__ import annotations

import asyncio

import pytest

from chatserver.errors import Unavailable
from chatserver.service.web.once import Once


async def test_who_asks_when_it_is_over_has_it_done_again():
    """Also in the very turn of the loop in which it ended, before those who waited have heard of that."""
    done = 0

    async def work() -> None:
        nonlocal done
        done += 1

    once = Once(work)
    first = asyncio.create_task(once())
    while not done:
        await asyncio.sleep(0)
    await once()
    assert done == 2
    await first


async def test_all_who_ask_meanwhile_wait_for_one_and_none_of_them_ends_it():
    begun, go_on = 0, asyncio.Event()

    async def work() -> None:
        nonlocal begun
        begun += 1
        await go_on.wait()
        raise Unavailable("away")

    once = Once(work)
    asking = [asyncio.create_task(once()) for _ in range(5)]
    await asyncio.sleep(0)
    asking[0].cancel()
    await asyncio.sleep(0)
    go_on.set()
    cancelled, *others = await asyncio.gather(*asking, return_exceptions=True)
    assert begun == 1 and isinstance(cancelled, asyncio.CancelledError)
    assert all(isinstance(other, Unavailable) for other in others)
    with pytest.raises(Unavailable):
        await once()
    assert begun == 2
