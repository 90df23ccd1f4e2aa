"""The Python client against the real web role: a fake engine writes, a proxy cuts."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from dataclasses import replace

import pytest

from chatserver import client as library
from chatserver.client import Finished, Lost, Options, QueuePlace, Started, TextDelta, connect
from tests.chatserver.client.cutting import cutting
from tests.chatserver.transports.conftest import opened_store, running_web
from tests.chatserver.transports.keyed import expire, new_key

BRIEF = Options(patience=60, connect_timeout=20, silence=15, call_timeout=30)
WORDS = "".join(f"w{i} " for i in range(20))


@pytest.fixture
async def client(web):
    async with connect(web.url, options=BRIEF) as client:
        yield client


async def test_an_answer_comes_as_typed_events(web, client):
    """Text, numbers that grow, the result with its usage."""
    async with client.send("Hello") as answer:
        assert answer.id
        assert answer.conversation_id
        events = [event async for event in answer]
    numbers = [event.position for event in events if not isinstance(event, QueuePlace)]
    assert numbers == sorted(set(numbers))
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == WORDS
    assert any(isinstance(event, Started) for event in events)
    assert isinstance(events[-1], Finished)
    result = answer.result
    assert (result.status, result.text, result.id) == ("completed", WORDS, answer.id)
    assert (result.usage.input, result.usage.output) == (5, 20)


async def test_turns_follow_each_other(web, client):
    """A conversation goes on; its items, the list, one conversation and removing it."""
    first = await client.ask("One")
    second = await client.ask("Two", conversation=first.conversation_id)
    assert second.conversation_id == first.conversation_id
    items = await client.items(first.conversation_id)
    assert [(item.role, item.text) for item in items] == [
        ("user", "One"), ("assistant", WORDS), ("user", "Two"), ("assistant", WORDS)
    ]  # fmt: skip
    assert (await client.conversation(first.conversation_id)).head == items[-1].id
    assert [found.id for found in await client.conversations()] == [first.conversation_id]
    await client.delete_conversation(first.conversation_id)
    with pytest.raises(library.Gone):
        await client.conversation(first.conversation_id)


async def test_a_stop_keeps_what_was_written(web, client):
    """The last event tells the status, the result has the text so far."""
    web.engine.pause = 0.05
    async with client.send("Hello") as answer:
        async for event in answer:
            if isinstance(event, TextDelta):
                await answer.stop()
                break
        result = await answer.finish()
    assert result.status == "cancelled"
    assert result.text
    assert WORDS.startswith(result.text)


async def test_leaving_does_not_stop_and_a_later_program_resumes(web, client):
    """Left in its middle, then read on by its id from the position that was reached: the rest, exactly."""
    web.engine.pause = 0.02
    async with client.send("Hello") as answer:
        head = ""
        async for event in answer:
            if isinstance(event, TextDelta):
                head += event.text
            if len(head) > 20:
                break
    async with connect(web.url, options=BRIEF) as other, other.resume(answer.id, answer.position) as rest:
        tail = "".join([text async for text in rest.texts()])
    assert head + tail == WORDS
    async with client.resume(answer.id, rest.position) as nothing:
        assert [type(event) for event in [e async for e in nothing]] == [Finished]
    assert nothing.result.text == WORDS


class Held:
    """An engine's `write` that holds each answer before its last piece, until `enough`."""

    def __init__(self, commits: int) -> None:
        self.enough, self.held = asyncio.Event(), 0
        self._commits, self._written = commits, Counter()

    async def wait(self) -> None:
        answer = asyncio.current_task()
        self._written[answer] += 1
        if self._written[answer] == self._commits - 1:
            self.held += 1
            await self.enough.wait()


async def test_cuts_at_random_places_lose_and_double_nothing(web, monkeypatch):
    """Requests, heads and events cut anywhere, 8 answers at once through one proxy: one generation each, whole."""
    monkeypatch.setattr("chatserver.client.options.LONGEST_WAIT", 0.5)
    patient = replace(BRIEF, patience=120)
    web.engine.answer = [f"word{i} é\u2028" for i in range(120)]
    web.engine.pause = 0.005
    web.engine.write = gate = Held(len(web.engine.answer) // web.engine.step)
    expected = "".join(web.engine.answer)
    losses: list[Lost] = []

    async def one(client) -> str:
        text, last = "", -1
        async with client.send("Go on") as answer:
            async for event in answer:
                if isinstance(event, Lost):
                    losses.append(event)
                if not isinstance(event, Lost | QueuePlace):
                    assert event.position > last
                    last = event.position
                if isinstance(event, TextDelta):
                    text += event.text
        assert answer.result.text == expected
        return text

    async def cut_enough(proxy) -> None:
        """See that there were ten cuts, also where the machine made so few pieces of it that few were by chance."""
        while len(losses) < 10:
            await asyncio.sleep(0.1)
            if gate.held == 8 and len(losses) < 10:
                proxy.cut_all()
        gate.enough.set()

    async with cutting(web.url, seed=7) as proxy, connect(proxy.url, options=patient) as client:
        # The whole object comes with the last event, which must fit through before a cut.
        proxy.longest = 16_000
        *texts, _ = await asyncio.gather(*(one(client) for _ in range(8)), cut_enough(proxy))
    assert texts == [expected] * 8
    assert len(web.engine.started) == len(set(web.engine.started)) == 8
    assert len(losses) >= 10, proxy.cuts


async def test_a_lost_request_is_not_asked_twice(web):
    """The connection breaks before the answer's head: the same key brings the same answer."""
    async with cutting(web.url, seed=1) as proxy:
        proxy.longest = 100_000
        async with connect(proxy.url, options=BRIEF) as client:
            await web.engine.rest()
            sending = asyncio.create_task(client.ask("Hello"))
            await asyncio.sleep(0.2)
            proxy.cut_all()
            await asyncio.sleep(0.5)
            web.engine.go.set()
            assert (await sending).text == WORDS
    assert len(web.engine.started) == 1


async def test_a_cancelled_read_can_go_on(web, client):
    """Reads under short time-outs, again and again: nothing is lost."""
    web.engine.pause = 0.03
    text = ""
    async with client.send("Hello") as answer:
        while answer.result is None:
            with contextlib.suppress(TimeoutError):
                event = await asyncio.wait_for(anext(answer), random.Random(len(text)).uniform(0.01, 0.1))
                text += event.text if isinstance(event, TextDelta) else ""
    assert text == WORDS


async def test_no_more_answers_at_once_than_the_cap(web):
    """Further ones wait for their turn, and all come."""
    web.engine.pause = 0.01
    running, most = 0, 0

    async def one(client) -> None:
        nonlocal running, most
        async with client.send("Hello") as answer:
            running += 1
            most = max(most, running)
            await answer.finish()
            running -= 1

    async with connect(web.url, options=Options(concurrency=3)) as client:
        await asyncio.gather(*(one(client) for _ in range(10)))
    assert most == 3


async def test_refusals_are_named(web, client):
    """The field, the code; nothing is tried again."""
    with pytest.raises(library.Refused, match="temperature") as caught:
        await client.ask("Hello", temperature=9)
    assert (caught.value.status, caught.value.param) == (400, "temperature")
    with pytest.raises(library.Gone):
        async with client.resume("resp_unknown") as answer:
            await answer.finish()
    with pytest.raises(library.AnswerFailed) as failed:
        await client.ask("FAIL")
    assert failed.value.code == "engine_failed"


async def test_a_key_that_is_refused_is_terminal():
    """At connecting; with and without /v1 in the address."""
    async with (
        opened_store("memory") as store,
        running_web(store, api_keys=(("acme", "secret-key-1"),)) as web,
    ):
        with pytest.raises(library.KeyRefused, match="Incorrect API key"):
            async with connect(web.url, "wrong-key-123", BRIEF):
                pass
        async with connect(web.url + "/v1/", "secret-key-1", BRIEF) as client:
            assert await client.models() == ["tiny"]


async def test_a_key_that_expires_in_mid_answer_is_terminal():
    """The stream goes on to its end; cut after the expiry, it is not taken up again, and the error says why."""
    async with opened_store("valkey") as store, running_web(store) as web:
        token = await new_key(store, expires_at=int(time.time()) + 3600)
        web.engine.answer, web.engine.pause = [f"w{i} " for i in range(300)], 0.1
        async with cutting(web.url, seed=3) as proxy:
            proxy.longest = 10_000_000
            async with connect(proxy.url, token, BRIEF) as client, client.send("Hello") as answer:
                async for event in answer:
                    if isinstance(event, TextDelta):
                        break
                await expire(store, token)
                proxy.cut_all()
                with pytest.raises(library.KeyRefused, match="expired"):
                    await answer.finish()


async def test_a_server_that_is_away_is_waited_for_so_long():
    """Nobody listens: the client gives up after its patience, and says why."""
    with pytest.raises(library.Unreachable, match=r"gave up after 1 s: Connect"):
        async with connect("http://127.0.0.1:9", options=Options(patience=1)):
            pass


async def test_a_full_queue_is_waited_for():
    """429 with a time to retry: the client keeps to it, and the answer comes."""
    async with opened_store("memory") as store, running_web(store, queue_bound=1) as web:
        await web.engine.rest()
        async with connect(web.url, options=BRIEF) as client:
            asking = [asyncio.create_task(client.ask("Hello")) for _ in range(3)]
            async with asyncio.timeout(60):
                while not store.waiting:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)  # the other two are refused
            assert len(store.waiting) == 1
            web.engine.go.set()
            assert {result.text for result in await asyncio.gather(*asking)} == {WORDS}


def test_addresses_are_checked():
    """Before anything is sent."""
    for url in ("", "127.0.0.1:8000", "ftp://host", "http://"):
        with pytest.raises(ValueError, match="url"):
            connect(url)
