"""A writer that knows its tapes looks at them again when something has changed, whatever it was, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest

from chatserver.adapters.valkey import ValkeyStore, keys, pens
from chatserver.adapters.valkey.client import Client
from chatserver.adapters.valkey.connect import Reply
from chatserver.adapters.valkey.scripts import Command
from chatserver.domain.response import Response, Status
from chatserver.domain.tape import Delta
from chatserver.errors import Unavailable
from chatserver.ports.tapes import Append, Appended
from tests.chatserver.adapters.things import NOW, SHARD, TENANT, closing, delta, opening, outcome_of, turn

OK = Appended(ok=True, stop_asked=False)
REFUSED = Appended(ok=False, stop_asked=False)
STOP = Appended(ok=True, stop_asked=True)


async def begun(store: ValkeyStore) -> Response:
    """An answer whose first records are on its tape."""
    await store.turns.begin(turn(), queue_bound=1000)
    (claimed,) = await store.turns.claim("eng-a", lease=30, shard=SHARD)
    assert await store.tapes.commit([opening(claimed)]) == [OK]
    return claimed


async def text(store: ValkeyStore, response: Response) -> str:
    records = await store.tapes.read(response.id, 4)
    return "".join(record.body.text for record in records if isinstance(record.body, Delta))


async def looks(client: Client) -> int:
    """How often a server has looked at a tape's end so far."""
    stats = (await client.run(SHARD, ("INFO", "commandstats"))).decode()
    lines = [line for line in stats.splitlines() if line.startswith("cmdstat_xrevrange:")]
    return int(lines[0].partition("calls=")[2].partition(",")[0]) if lines else 0


async def test_tapes_that_are_known_are_only_appended_to(store: ValkeyStore, client: Client) -> None:
    """Also where a new one is among them, which is looked at once."""
    first = await begun(store)
    before = await looks(client)
    for number in range(5, 10):
        assert await store.tapes.commit([delta(first, number, "a")]) == [OK]
    assert await looks(client) == before
    second = await begun(store)
    both = [delta(first, 10, "b"), delta(second, 5, "c")]
    assert await store.tapes.commit(both) == [OK, OK]
    assert await looks(client) == before + 1
    assert (await text(store, first), await text(store, second)) == ("aaaaab", "c")


Change = Callable[[ValkeyStore, Response], Awaitable[object]]


async def _finish(store: ValkeyStore, response: Response) -> None:
    outcome = outcome_of(response)
    assert await store.turns.finish(response, outcome, closing(outcome, 6), {})


async def _claim_elsewhere(store: ValkeyStore, response: Response) -> None:
    await store.turns.release("eng-a")
    await store.turns.claim("eng-b", lease=30, shard=SHARD)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda store, response: store.turns.stop(TENANT, response.id, NOW), STOP),
        (lambda store, response: store.turns.release("eng-a"), REFUSED),
        (_claim_elsewhere, REFUSED),
        (_finish, REFUSED),
        (lambda store, response: store.tapes.watch([response.id], "web-a"), OK),
        (lambda store, response: store.turns.begin(turn(), queue_bound=1000), OK),
    ],
    ids=["stop", "put back", "claimed elsewhere", "finish", "watch", "another begins"],
)
async def test_a_change_by_anybody_is_seen_by_the_next_append(
    store: ValkeyStore, client: Client, change: Change, expected: Appended
) -> None:
    """The change is another process's; the writer knew the tape, and a second one beside it in the shard."""
    response, beside = await begun(store), await begun(store)
    assert await store.tapes.commit([delta(response, 5, "a"), delta(beside, 5, "b")]) == [OK, OK]
    await change(ValkeyStore(client), response)
    # more than what the change itself put on the tape, so that its numbers alone do not refuse it
    (seen,) = await store.tapes.commit([delta(response, 6, "c", "d", "e")])
    assert seen == expected
    assert await text(store, response) == ("acde" if expected.ok else "a")


async def test_a_change_is_seen_by_a_tape_that_waited(store: ValkeyStore, client: Client) -> None:
    """The commit after the change was to the other tape of the shard: what is known of this one is old."""
    response, beside = await begun(store), await begun(store)
    await store.tapes.commit([delta(response, 5, "a"), delta(beside, 5, "b")])
    await ValkeyStore(client).turns.stop(TENANT, response.id, NOW)
    assert await store.tapes.commit([delta(beside, 6, "b")]) == [OK]
    assert await store.tapes.commit([delta(beside, 7, "b"), delta(response, 6, "a")]) == [OK, STOP]


async def test_watchers_that_come_and_go_are_told_and_not_told(store: ValkeyStore, client: Client) -> None:
    response = await begun(store)
    listening = store.signals.bundles("web-a")
    await anext(listening)
    await store.tapes.commit([delta(response, 5, "a")])
    other = ValkeyStore(client)
    await other.tapes.watch([response.id], "web-a")
    await other.tapes.watch([response.id], "web-a")
    async with asyncio.timeout(60):
        for number in (6, 7):
            await store.tapes.commit([delta(response, number, "b")])
            assert await anext(listening) == [(response.id, list(delta(response, number, "b").records))]
        await other.tapes.unwatch(response.id, "web-a")
        await store.tapes.commit([delta(response, 8, "c")])
        await other.tapes.watch([response.id], "web-a")
        await store.tapes.commit([delta(response, 9, "d")])
        assert await anext(listening) == [(response.id, list(delta(response, 9, "d").records))]
    await listening.aclose()  # type: ignore[attr-defined]


async def test_a_watch_that_stands_throws_no_pen_away(store: ValkeyStore, client: Client) -> None:
    response = await begun(store)
    assert await store.tapes.watch([response.id], "web-a") == [4]
    await store.tapes.commit([delta(response, 5, "a")])
    assert await store.tapes.watch([response.id, "resp_03" + "0" * 30], "web-a") == [5, None]
    before = await looks(client)
    await store.tapes.commit([delta(response, 6, "b")])
    assert await looks(client) == before


async def test_a_gap_is_refused_on_a_tape_that_is_known(store: ValkeyStore) -> None:
    response = await begun(store)
    await store.tapes.commit([delta(response, 5, "a")])
    assert await store.tapes.commit([delta(response, 7, "c")]) == [REFUSED]
    assert await store.tapes.commit([delta(response, 6, "b"), delta(response, 7, "c")]) == [OK, OK]
    assert await text(store, response) == "abc"


@pytest.mark.parametrize("lost", [True, False], ids=["commit and pen", "pen alone"])
async def test_what_the_store_lost_leaves_no_gap(store: ValkeyStore, client: Client, lost: bool) -> None:
    """As after a fail-over to a replica that did not have the last commit, and a power cut that took the file's end."""
    response = await begun(store)
    await store.tapes.commit([delta(response, 5, "a")])
    kept = await client.run(SHARD, ("HGETALL", keys.pens(SHARD)))
    await store.tapes.commit([delta(response, 6, "b")])
    await client.run(SHARD, ("HSET", keys.pens(SHARD), *kept))
    if lost:
        await client.run(SHARD, ("XDEL", keys.response(response.id).tape, "7-0"))
    expected = REFUSED if lost else OK
    assert await store.tapes.commit([delta(response, 7, "c")]) == [expected]
    assert await text(store, response) == ("a" if lost else "abc")


async def test_a_tape_that_an_operator_removed_is_not_made_anew(store: ValkeyStore, client: Client) -> None:
    response = await begun(store)
    await store.tapes.commit([delta(response, 5, "a")])
    names = keys.response(response.id)
    await client.run(SHARD, ("DEL", names.tape, names.fields))
    assert await store.tapes.commit([delta(response, 6, "b")]) == [REFUSED]
    assert await client.run(SHARD, ("EXISTS", names.tape)) == 0


class Deaf(Client):
    """Loses the answer to every commit after it was done."""

    async def pipeline(self, commands: Sequence[tuple[int, Command]], *, again: bool = True) -> list[Reply]:
        await super().pipeline(commands, again=again)
        raise Unavailable("lost")


@pytest.fixture
async def deaf(store: ValkeyStore, client: Client) -> AsyncIterator[Callable[[bool], None]]:
    """Switches the loss of answers on and off."""
    kind = client.__class__

    def switch(on: bool) -> None:
        client.__class__ = Deaf if on else kind

    yield switch
    switch(False)


async def test_a_commit_whose_answer_was_lost_is_sent_again(
    store: ValkeyStore, deaf: Callable[[bool], None]
) -> None:
    """Known or not, alone or with what came meanwhile: each token is there once."""
    response = await begun(store)
    for number in (5, 8):
        deaf(True)
        with pytest.raises(Unavailable):
            await store.tapes.commit([delta(response, number, "a")])
        deaf(False)
        assert await store.tapes.commit([delta(response, number, "a")]) == [OK]
        again = [delta(response, number, "a"), delta(response, number + 1, "b")]
        together = Append(response.id, response.claim, (*again[0].records, *again[1].records))
        assert await store.tapes.commit([together]) == [OK]
        assert await store.tapes.commit([delta(response, number + 2, "c")]) == [OK]
    assert await text(store, response) == "abcabc"


async def test_the_same_command_twice_is_one_commit(store: ValkeyStore, client: Client) -> None:
    """The client itself sends a pipeline again when the connection breaks before its answer."""
    response, writer = await begun(store), store.tapes._pens  # type: ignore[attr-defined]
    await store.tapes.commit([delta(response, 5, "a")])
    pipeline, sent = client.pipeline, []

    async def twice(commands: Sequence[tuple[int, Command]], *, again: bool = True) -> list[Reply]:
        sent.append(await pipeline(commands, again=again))
        return await pipeline(commands, again=again)

    client.pipeline = twice  # type: ignore[method-assign]
    assert await store.tapes.commit([delta(response, 6, "b")]) == [OK]
    assert sent[0] == [[1]] and writer.name
    del client.pipeline
    assert await store.tapes.commit([delta(response, 7, "c")]) == [OK]
    assert await text(store, response) == "abc"


async def test_more_tapes_than_one_call_takes(store: ValkeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pen that was thrown away makes all calls of a commit look, not only the first of a shard."""
    monkeypatch.setattr(pens, "STROKE", 2)
    responses = [await begun(store) for _ in range(7)]
    last = [4] * len(responses)

    async def commit() -> list[Appended]:
        batch = [delta(response, last[n] + 1, "x") for n, response in enumerate(responses)]
        last[:] = [number + 1 for number in last]
        return await store.tapes.commit(batch)

    for _ in range(3):
        assert await commit() == [OK] * 7
    for stopped in (6, 3, 0):
        await store.turns.stop(TENANT, responses[stopped].id, NOW)
        seen = await commit()
        assert seen[stopped] == STOP
        assert await commit() == seen
    assert [await text(store, response) for response in responses] == ["x" * (last[0] - 4)] * 7


async def test_pens_go_with_the_answers(store: ValkeyStore, client: Client) -> None:
    """A writer that is gone leaves nothing behind."""
    response = await begun(store)
    assert await client.run(SHARD, ("EXISTS", keys.pens(SHARD))) == 1
    outcome = outcome_of(response, status=Status.COMPLETED)
    assert await store.turns.finish(response, outcome, closing(outcome, 5), {})
    assert await client.run(SHARD, ("EXISTS", keys.pens(SHARD))) == 0
