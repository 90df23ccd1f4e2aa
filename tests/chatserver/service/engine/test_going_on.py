"""Going on with an answer, and several answers to one input: on the scripted engine and a real store."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from chatserver.app.web import chat_on
from chatserver.domain.item import ItemStatus
from chatserver.domain.response import Status
from chatserver.domain.tape import Delta
from chatserver.errors import BadRequest, Conflict, NotFound, Overloaded
from chatserver.service.operation.again import send_again
from chatserver.service.web.chat import Chat
from chatserver.service.web.hub import Hub
from chatserver.settings import Settings
from chatserver.wire.commands import Page
from chatserver.wire.responses import parse
from tests.chatserver.service.engine_role import TENANT, ended, scripted, tokens_on_tape, worker

ASK = {"temperature": 0, "ignore_eos": True, "max_output_tokens": 12, "truncation": "auto"}


@pytest.fixture
async def chat(store):
    """A web role and an engine role on one store."""
    async with scripted() as engine, worker(store, engine):
        while not await store.registry.models():
            await asyncio.sleep(0.005)
        yield web_of(store)


def web_of(store, **changes) -> Chat:
    return chat_on(store, Hub(store.tapes, store.signals, "web_test"), Settings(**changes))


async def asked(chat: Chat, store, **body):
    response, _ = await chat.respond(TENANT, parse(body), watch=False)
    return await ended(store, response.id)


async def stored(store, response):
    branch = await store.conversations.branch(
        TENANT, response.conversation, response.outcome.item.id, with_ids=True
    )
    return branch[-1]


async def test_an_answer_goes_on_to_the_id(chat, store):
    """Cut into three parts, it has the ids, the text and the place of the answer in one; nothing is overwritten."""
    whole = await asked(chat, store, input="Tell me about tides.", **{**ASK, "max_output_tokens": 36})
    part = await asked(chat, store, input="Tell me about tides.", **ASK)
    parts = [part]
    for _ in range(2):
        parts.append(await asked(chat, store, **{"continue": parts[-1].id}))
    items = [await stored(store, response) for response in parts]
    expected = await stored(store, whole)
    assert items[-1].emitted == expected.emitted
    assert items[-1].ids == expected.ids
    assert items[-1].item.text == expected.item.text
    for before, after in itertools.pairwise(items):
        assert after.emitted[: len(before.emitted)] == before.emitted
        assert after.item.text.startswith(before.item.text)
        assert (after.item.parent, before.item.status) == (before.item.parent, ItemStatus.INCOMPLETE)
    conversation = await chat.conversation(TENANT, part.conversation)
    assert conversation.head == items[-1].item.id
    usage = [response.outcome.usage for response in parts]
    assert [u.output for u in usage] == [12, 12, 12]
    assert [u.prompt - usage[0].prompt for u in usage] == [0, 12, 24]
    # all but the last token that was written: its KV is computed when something follows
    assert [u.prompt - u.cached for u in usage[1:]] == [1, 1]
    assert [r.outcome.ledger.carried for r in parts] == [0, 12, 24]
    assert parts[2].continues == items[1].item.id


async def test_the_tape_of_a_continuation_begins_with_the_earlier_text(chat, store):
    """Whoever reads only the new response has the whole answer."""
    part = await asked(chat, store, input="Hi", **ASK)
    more = await asked(chat, store, **{"continue": part.id})
    records = await store.tapes.read(more.id, -1)
    text = "".join(r.body.text for r in records if isinstance(r.body, Delta))
    assert text == more.outcome.item.text
    assert await tokens_on_tape(store, more.id) == 24


async def test_a_turn_behind_a_continued_answer_hits_the_cache(chat, store):
    """The next turn computes its own message only."""
    part = await asked(chat, store, input="Hi", **ASK)
    more = await asked(chat, store, **{"continue": part.id})
    after = await asked(chat, store, input="And?", previous_response_id=more.id, **ASK)
    usage = after.outcome.usage
    question = len(
        (await store.conversations.branch(TENANT, more.conversation, after.inputs[-1], with_ids=True))[-1].ids
    )
    assert usage.prompt - usage.cached <= question + 6  # the last token, what closes the answer, and the cue
    replayed = await send_again(store.conversations, store.turns, store.tapes, TENANT, more.id)
    assert replayed.same and replayed.tokens == 12


async def test_a_continuation_survives_its_engine(store):
    """Killed in the middle of the second part, it is still the answer in one."""
    async with scripted() as engine, worker(store, engine):
        while not await store.registry.models():
            await asyncio.sleep(0.005)
        whole = await asked(web_of(store), store, input="Hi", **{**ASK, "max_output_tokens": 60})
        part = await asked(web_of(store), store, input="Hi", **ASK)
    chat = web_of(store)
    more, _ = await chat.respond(TENANT, parse({"continue": part.id, "max_output_tokens": 48}), watch=False)
    async with (
        scripted(tokens_per_second=100.0, fail_after=20) as engine,
        worker(store, engine) as killed,
        asyncio.timeout(60),
    ):
        while await tokens_on_tape(store, more.id) < 25:
            await asyncio.sleep(0.005)
    await store.turns.release(killed._engine_id)
    async with scripted() as engine, worker(store, engine):
        done = await ended(store, more.id)
    assert done.claim > 1
    assert (await stored(store, done)).emitted == (await stored(store, whole)).emitted
    assert (done.outcome.usage.output, done.outcome.ledger.carried) == (48, 12)


async def test_a_stopped_answer_goes_on(store):
    """Stopped by the user in mid-answer: what was kept is the beginning of what follows."""
    async with scripted(tokens_per_second=100.0) as engine, worker(store, engine):
        while not await store.registry.models():
            await asyncio.sleep(0.005)
        chat = web_of(store)
        response, _ = await chat.respond(
            TENANT, parse({"input": "Hi", **ASK, "max_output_tokens": 4000}), watch=False
        )
        while await tokens_on_tape(store, response.id) < 5:
            await asyncio.sleep(0.005)
        with pytest.raises(Conflict):
            await chat.respond(TENANT, parse({"continue": response.id}))
        await chat.stop(TENANT, response.id)
        stopped = await ended(store, response.id)
        assert stopped.status is Status.CANCELLED
        more = await asked(chat, store, **{"continue": response.id, "max_output_tokens": 9})
        before, after = await stored(store, stopped), await stored(store, more)
        assert after.emitted[: len(before.emitted)] == before.emitted
        assert len(after.emitted) == len(before.emitted) + 9


async def test_what_cannot_go_on_is_refused(chat, store):
    """Whole answers, foreign and unknown ones, other models, and fields that would change the question."""
    whole = await asked(chat, store, input="Hi", **{**ASK, "ignore_eos": False, "max_output_tokens": 4000})
    assert whole.status is Status.COMPLETED
    part = await asked(chat, store, input="Hi", **ASK)
    for body, error in (
        ({"continue": whole.id}, BadRequest),
        ({"continue": "resp_nobody"}, NotFound),
        ({"continue": part.id[:-1] + ("0" if part.id[-1] != "0" else "1")}, NotFound),
    ):
        with pytest.raises(error):
            await chat.respond(TENANT, parse(body))
    with pytest.raises(NotFound):
        await chat.respond("somebody else", parse({"continue": part.id}))
    for field in ({"input": "x"}, {"temperature": 1}, {"conversation": "c"}, {"store": False}, {"n": 2}):
        with pytest.raises(BadRequest) as refused:
            parse({"continue": part.id, **field})
        assert refused.value.param == next(iter(field))


async def test_a_stop_string_over_the_seam_ends_the_answer(chat, store):
    """Begun by what was cut off and ended by what follows: the answer ends there, as it would have in one."""
    whole = await asked(chat, store, input="Tell me about tides.", **{**ASK, "max_output_tokens": 36})
    part = await asked(chat, store, input="Tell me about tides.", **ASK)
    text, kept = whole.outcome.item.text, part.outcome.item.text
    stop = text[len(kept) - 3 : len(kept) + 3]
    assert text.index(stop) == len(kept) - 3
    cut = await asked(chat, store, input="Tell me about tides.", **ASK, stop=[stop])
    assert cut.outcome.item.text == kept
    more = await asked(chat, store, **{"continue": cut.id, "max_output_tokens": 24})
    assert (more.status, more.outcome.item.text) == (Status.COMPLETED, kept)
    assert 0 < more.outcome.usage.output < 6


async def test_several_answers_are_siblings(chat, store):
    """They answer one input with seeds of their own; the first is at the head, all are whole."""
    ask = {**ASK, "temperature": 1, "seed": 7, "n": 3}
    first = await asked(chat, store, input="Hi", **ask)
    others = [await ended(store, sibling) for sibling in first.siblings]
    assert len(others) == 2 and {other.beside for other in others} == {first.id}
    items = [(await stored(store, response)).item for response in (first, *others)]
    assert {item.parent for item in items} == {first.inputs[-1]}
    assert len({item.text for item in items}) == 3
    assert (await chat.conversation(TENANT, first.conversation)).head == items[0].id
    assert (await chat.conversation(TENANT, first.conversation)).active is None
    follow = await asked(chat, store, input="Go on", previous_response_id=others[0].id, **ASK)
    assert follow.parent == items[1].id


async def test_a_slow_first_answer_still_gets_the_head(store):
    """Whichever ends first, the head is the first response's."""
    chat = web_of(store)
    async with scripted() as engine:
        async with worker(store, engine):
            while not await store.registry.models():
                await asyncio.sleep(0.005)
        first, _ = await chat.respond(TENANT, parse({"input": "Hi", **ASK, "n": 2}), watch=False)
        (held,) = await store.turns.claim("eng_of_nobody", lease=600)
        assert held.id == first.id
        async with worker(store, engine, lease=0.3):
            (sibling,) = first.siblings
            await ended(store, sibling)
            assert (await chat.conversation(TENANT, first.conversation)).head == first.inputs[-1]
            await store.turns.release("eng_of_nobody")
            done = await ended(store, first.id)
    assert (await chat.conversation(TENANT, first.conversation)).head == done.outcome.item.id


async def test_several_answers_are_one_request(chat, store):
    """The key finds all of them again; a refused prompt takes its input back; a full queue refuses all."""
    ask = parse({"input": "Hi", **ASK, "n": 2})
    first, fresh = await chat.respond(TENANT, ask, key="k", fingerprint="f", watch=False)
    again, fresh_again = await chat.respond(TENANT, ask, key="k", fingerprint="f", watch=False)
    assert (fresh, fresh_again) == (True, False)
    assert (again.id, again.siblings) == (first.id, first.siblings)
    await asyncio.gather(*(ended(store, one) for one in (first.id, *first.siblings)))

    too_long = {"input": "word " * 20_000, "conversation": first.conversation, "n": 2}
    refused = await asked(chat, store, **too_long)
    other = await ended(store, refused.siblings[0])
    assert {refused.status, other.status} == {Status.FAILED}
    items = await chat.tree.all(TENANT, first.conversation, Page(100, newest_first=False))
    assert refused.inputs[0] not in {item.id for item in items}

    crowded = web_of(store, queue_bound=2)
    with pytest.raises(Overloaded):
        await crowded.respond(TENANT, parse({"input": "Hi", **ASK, "n": 3}))
