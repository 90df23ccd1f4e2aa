"""The client: scripts, lost answers, errors of the store, cancellation."""

from __future__ import annotations

import asyncio
import logging
from importlib.resources import files

import pytest
from redis.exceptions import ResponseError

from chatserver.adapters.valkey import ValkeyStore
from chatserver.adapters.valkey import connect as links
from chatserver.adapters.valkey.client import Client, connect
from chatserver.adapters.valkey.pipe import MAX_ASKED, Pipe
from chatserver.adapters.valkey.scripts import script
from chatserver.domain.ids import SHARDS
from chatserver.errors import StartupError, Unavailable
from tests.chatserver.adapters.things import BOUND, SHARD, TENANT, opening, turn
from tests.stores import running_store


async def test_scripts_are_brought_to_a_server_that_lacks_them(store: ValkeyStore, client: Client) -> None:
    """Also in the middle of a pipeline, where the other commands must not run twice."""
    await client.run(0, ("SCRIPT", "FLUSH"))
    new = turn()
    await store.turns.begin(new, queue_bound=BOUND)
    (claimed,) = await store.turns.claim("eng-a", lease=30)
    await client.run(0, ("SCRIPT", "FLUSH"))
    watch = script("watch").command(("chat:{s03}:r:x", "chat:{s03}:pens", "chat:{s03}:r:x:tape"), "web", 1, 9)
    replies = await client.pipeline([(SHARD, ("INCR", "chat:{s03}:n")), (SHARD, watch), (0, ("PING",))])
    assert replies == [1, [0, []], b"PONG"]
    assert await client.run(SHARD, ("GET", "chat:{s03}:n")) == b"1"
    assert (await store.tapes.commit([opening(claimed)]))[0].ok


def test_every_script_says_what_it_does() -> None:
    """The header names keys, arguments or none, and the result."""
    scripts = list(files("chatserver.adapters.valkey").joinpath("lua").iterdir())
    assert scripts
    for path in scripts:
        head = path.read_text().split("\n\n")[0]
        assert "-- KEYS" in head and "-- ARGV" in head and "-- Result" in head, path.name


async def test_a_refused_step_is_unavailable_and_logged(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """One line in the log says which step and why; the client's message carries no internals."""
    await client.run(SHARD, ("SET", "chat:{s03}:jobs", "not a zset"))
    with caplog.at_level(logging.ERROR), pytest.raises(Unavailable, match="claim") as refused:
        await ValkeyStore(client).turns.claim("eng-a", lease=1, shard=SHARD)
    assert "WRONGTYPE" in caplog.text and "WRONGTYPE" not in refused.value.message


async def test_a_refused_step_is_not_sent_again(client: Client) -> None:
    """It may have been refused amid what it does: a second time does the first half twice."""
    key = "chat:{s03}:halves"
    half = "redis.call('INCR', KEYS[1]); return redis.call('ZADD', KEYS[1], 1, 'x')"
    for again in (True, False):
        with pytest.raises(Unavailable):
            await client.run(SHARD, ("EVAL", half, 1, key), again=again)
    assert await client.run(SHARD, ("GET", key)) == b"2"


async def test_a_full_store_is_unavailable() -> None:
    with running_store() as running:
        own = await connect(running.url)
        await own.run(0, ("CONFIG", "SET", "maxmemory", "1"))
        with pytest.raises(Unavailable):
            await ValkeyStore(own).turns.begin(turn(), queue_bound=BOUND)
        await own.run(0, ("CONFIG", "SET", "maxmemory", "0"))
        await own.close()


async def test_no_server_is_a_startup_error_that_hides_the_password() -> None:
    for url in ("redis://user:secret@127.0.0.1:1/0", "unix:///nonexistent/store.sock", "redis://127.0.0.1:x"):
        with pytest.raises(StartupError) as refused:
            await ValkeyStore.open(url)
        message = str(refused.value)
        assert "cannot reach Redis at" in message and "unset CHATSERVER_REDIS_URL" in message
        assert "secret" not in message and "\n" not in message


async def test_a_server_that_goes_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    """While it is away every call is Unavailable with a time to retry; then it goes on, which the log tells."""
    with running_store() as running:
        own = await ValkeyStore.open(running.url)
        await own.registry.ping()
        running.kill()
        with pytest.raises(Unavailable) as refused:
            await own.registry.ping()
        assert refused.value.retry_after
        running.start()
        assert "answers again" not in caplog.text
        await asyncio.gather(*(own.registry.ping() for _ in range(50)))
        assert caplog.text.count("answers again, after") == 1
        running.restart()
        await own.registry.ping()
        await own.turns.claim("eng-a", lease=1, shard=0)  # not repeatable: needs a living one
        await own.close()
        await own.close()
        with pytest.raises(Unavailable):
            await own.registry.ping()


async def test_a_full_disk_is_told_with_what_to_do(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Valkey refuses all but reading while its file cannot be written: no step was wrong, it is not away."""
    received = Pipe._take
    full = "MISCONF Errors writing to the AOF file: No space left on device script: x:9."
    monkeypatch.setattr(Pipe, "_take", lambda pipe, _: received(pipe, ResponseError(full)))
    with pytest.raises(Unavailable, match="cannot write: its disk is full") as refused:
        await ValkeyStore(client).registry.engines()
    assert refused.value.retry_after
    monkeypatch.undo()
    await ValkeyStore(client).registry.engines()
    assert (
        "writes nothing (Errors writing to the AOF file: No space left on device): make room" in caplog.text
    )
    assert "answers again" not in caplog.text


async def test_a_lost_answer_is_asked_for_again_where_that_is_safe(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repeatable step survives one broken connection, a claim does not try."""
    store = ValkeyStore(client)
    received = Pipe.data_received
    left = 1

    def lose(pipe: Pipe, data: bytes) -> None:
        nonlocal left
        if left:  # the server did its work
            left -= 1
            pipe.close()
        else:
            received(pipe, data)

    def broken(times: int) -> None:
        nonlocal left
        left = times

    monkeypatch.setattr(Pipe, "data_received", lose)
    new = turn()
    await store.turns.begin(new, queue_bound=BOUND)
    assert await store.turns.waiting() == 1
    broken(1)
    assert await store.turns.get(TENANT, new.response.id) == new.response
    broken(9)
    with pytest.raises(Unavailable):
        await store.turns.get(TENANT, new.response.id)
    broken(1)
    with pytest.raises(Unavailable):
        await store.turns.claim("eng-a", lease=1, shard=SHARD)


async def test_a_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_store() as running:
        own = await connect(running.url)
        running.pause()
        with pytest.raises(links.LinkLost, match=r"no answer within 0\.1 s"):
            await own._seed.exchange([("PING",)], timeout=0.1)
        running.resume()
        assert await own.run(0, ("PING",)) == b"PONG"
        await own.close()


async def test_a_cancelled_call_leaves_no_answer_behind(client: Client) -> None:
    """The next caller on that connection gets its own answer, not the cancelled one's."""
    for delay in range(30):
        task = asyncio.ensure_future(client.run(0, ("ECHO", "cancelled")))
        for _ in range(delay):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await client.run(0, ("ECHO", "mine")) == b"mine"


async def test_calls_share_a_connection(client: Client) -> None:
    """Many calls at once, more than it takes at a time, each get their own answer; none of them opens another one."""
    before = await _clients(client)
    calls = 3 * MAX_ASKED
    said = await asyncio.gather(*(client.run(i % SHARDS, ("ECHO", str(i))) for i in range(calls)))
    assert said == [str(i).encode() for i in range(calls)]
    assert await _clients(client) == before


async def test_who_asks_as_the_connection_opens_shares_it(client: Client) -> None:
    """Also in the very turn of the loop in which it was opened."""
    link, before = client._homes[0], await _clients(client)
    assert link._shared is not None
    link._shared.close()
    link._opening = opening = asyncio.create_task(link._share())
    while not opening.done():
        await asyncio.sleep(0)
    async with asyncio.timeout(60):
        assert await link.exchange([("PING",)]) == [b"PONG"]
    assert link._opening is None and not link._shared.ended
    assert await _clients(client) == before


async def test_steps_that_wait_at_the_server_are_in_nobodys_way(client: Client) -> None:
    """They have bounded connections of their own."""
    link, before = client._homes[0], await _clients(client)
    waits = [link.exchange([("BLPOP", f"chat:{{s00}}:none{i}", 1)], alone=True) for i in range(40)]
    waiting = asyncio.gather(*waits)
    while await _clients(client) < before + links.CONNECTIONS:
        await asyncio.sleep(0.01)
    assert await client.run(0, ("PING",)) == b"PONG"
    assert not waiting.done()
    assert await waiting == [[None]] * 40
    assert await _clients(client) == before + links.CONNECTIONS


async def test_only_what_is_late_is_given_up(client: Client) -> None:
    """Who asked with more patience on the same connection gets the answer; the next one asks on another connection."""
    link = client._homes[0]
    slow = asyncio.ensure_future(link.exchange([("BLPOP", "chat:{s00}:none", 120)], timeout=0.1))
    patient = asyncio.ensure_future(link.exchange([("ECHO", "late")]))
    with pytest.raises(links.LinkLost, match=r"within 0\.1 s"):
        await slow
    assert await link.exchange([("ECHO", "at once")]) == [b"at once"]
    assert not patient.done()
    await link.exchange([("RPUSH", "chat:{s00}:none", "something")])
    assert await patient == [b"late"]


async def _clients(client: Client) -> int:
    return len((await client.run(0, ("CLIENT", "LIST"))).splitlines())
