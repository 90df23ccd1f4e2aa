"""What the store acknowledged survives its death."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from chatserver.adapters.valkey import ValkeyStore
from chatserver.errors import Unavailable
from tests.chatserver.adapters.things import BOUND, NOW, TENANT, delta, first_turn, opening
from tests.stores import RunningStore, running_store


async def test_acknowledged_appends_survive_kill_9() -> None:
    """The store dies in the middle of a stream of commits; each acknowledged token is there afterwards."""
    with running_store() as running:
        store = await ValkeyStore.open(running.url)
        new = first_turn()
        await store.turns.begin(new, queue_bound=BOUND)
        (claimed,) = await store.turns.claim("eng-a", lease=0.5)
        await store.tapes.commit([opening(claimed)])
        acknowledged = 4

        async def write() -> None:
            nonlocal acknowledged
            while True:
                await store.tapes.commit([delta(claimed, acknowledged + 1, "x")])
                acknowledged += 1

        writing = asyncio.create_task(write())
        while acknowledged < 500:
            await asyncio.sleep(0)
        running.kill()
        with contextlib.suppress(Unavailable):
            await writing
        running.start()
        records = await store.tapes.read(claimed.id, -1, limit=10_000)
        assert records[-1].last >= acknowledged
        # an unacknowledged one may be there, too: sending it again is how the writer goes on
        assert (await store.tapes.commit([delta(claimed, acknowledged + 1, "x")]))[0].ok
        records = await store.tapes.read(claimed.id, 4, limit=10_000)
        assert [record.last for record in records] == list(range(5, acknowledged + 2))
        assert await _comes_back(store) == claimed.id
        found = await store.conversations.get(TENANT, claimed.conversation or "")
        assert (found.created_at, found.active) == (NOW, claimed.id)
        await store.close()


async def _comes_back(store: ValkeyStore) -> str:
    """Leases survive the restart as well, and run out."""
    async with asyncio.timeout(60):
        while not await store.turns.reap():
            await asyncio.sleep(0.02)
    (again,) = await store.turns.claim("eng-b", lease=30)
    assert again.claim == 2
    return again.id


async def test_a_torn_tail_of_the_file_is_cut_off(tmp_path: Path) -> None:
    """A power cut may leave half a step at the end of the append-only file; the store starts without it."""
    running = RunningStore(tmp_path)
    running.start()
    store = await ValkeyStore.open(running.url)
    new = first_turn()
    await store.turns.begin(new, queue_bound=BOUND)
    running.kill()
    (tail,) = tmp_path.glob("store/appendonlydir/*.incr.aof")
    with tail.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$1\r\na")
    running.start()
    assert await store.turns.get(TENANT, new.response.id) == new.response
    await store.close()
    running.close()
