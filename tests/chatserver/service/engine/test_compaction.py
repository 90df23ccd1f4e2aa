"""Compaction: what a cut drops is summarised in idle time, stays behind the head, and never stands in the way."""

from __future__ import annotations

import asyncio
import os

import pytest

from chatserver.domain.access import new_token
from chatserver.domain.ids import summary_id
from chatserver.domain.item import Role
from chatserver.domain.response import Status
from chatserver.service.engine.summaries import OPENING, REQUEST
from chatserver.service.operation.again import send_again
from chatserver.service.web.admission import Nobody
from chatserver.wire.commands import Page
from chatserver.wire.responses import parse
from engine.contract import EngineError
from tests.chatserver.service.engine.test_going_on import asked, web_of
from tests.chatserver.service.engine_role import TENANT, ended, scripted, worker

ASK = {
    "temperature": 0,
    "ignore_eos": True,
    "max_output_tokens": 40,
    "truncation": {"type": "auto", "compaction": True},
}
CONTEXT = 700


@pytest.fixture
async def role(store):
    """A web role, an engine role with a small window, and the compactor."""
    async with scripted(context=CONTEXT) as engine, worker(store, engine) as running:
        while not await store.registry.models():
            await asyncio.sleep(0.005)
        yield web_of(store), engine, running._parts


async def quiet(parts) -> None:
    """Wait until no turn is under way (one wants a summary after its end is stored) and no idle work is left."""
    async with asyncio.timeout(60):
        while parts.compactor._holds or not (parts.compactor.idle and parts.prefixes.idle):
            await asyncio.sleep(0.01)


async def talk(chat, store, parts, turns: int, *, settle: bool = True, **ask):
    """Some turns of one conversation; the responses."""
    found = []
    for number in range(turns):
        place = {"conversation": found[0].conversation} if found else {}
        found.append(await asked(chat, store, input=f"Word {number} " + "x " * 20, **{**ASK, **place, **ask}))
        if settle:
            await quiet(parts)
    return found


async def test_a_cut_leaves_a_summary_behind_the_head(role, store):
    """It is an item, the prompt has it after the head, the window is kept, and no turn pays for it."""
    chat, engine, parts = role
    turns = await talk(chat, store, parts, 12)
    ledgers = [response.outcome.ledger for response in turns]
    assert parts.compactor.counts.written >= 2 and not parts.compactor.counts.failed
    first = next(i for i, ledger in enumerate(ledgers) if ledger.summary)
    before, ledger = ledgers[first - 1], ledgers[first]
    assert before.next_cut is not None and before.summary is None  # the cut moved as that answer ended
    branch = await chat.tree.branch(TENANT, turns[0].conversation)
    names = [item.id for item in branch]
    covered = names[names.index(ledger.cut) - 1]
    assert ledger.summary == summary_id(covered)
    summary = await chat.tree.item(TENANT, turns[0].conversation, ledger.summary)
    assert (summary.role, summary.parent) == (Role.SUMMARY, covered)
    ids = engine.tokenizer.segment("system", OPENING + summary.text)
    assert ledger.summary_tokens == len(ids)
    assert ledger.head == len(engine.tokenizer.head(None)) + len(ids)
    for number, response in enumerate(turns):
        usage, ledger = response.outcome.usage, response.outcome.ledger
        assert (
            usage.prompt + 40 <= CONTEXT and len(ledger.kept + ledger.dropped) == 0
        )  # stored without its lists
        new = len(engine.tokenizer.segment("user", f"Word {number} " + "x " * 20)) + len(
            engine.tokenizer.cue()
        )
        if number:
            tail = len(engine.tokenizer.tail((0,)))
            assert usage.prompt - usage.cached <= new + tail + 1, number
    assert all(ledger.summary for ledger in ledgers[first:])
    replayed = await send_again(store.conversations, store.turns, store.tapes, TENANT, turns[-1].id)
    assert replayed.same


async def test_what_it_costs_is_told(role, store):
    """Prompt, hits and output are on the item; the prompt was in the cache but for the question."""
    chat, engine, parts = role
    turns = await talk(chat, store, parts, 8)
    told = [r.outcome.ledger.summary for r in turns if r.outcome.ledger.summary]
    summary = await chat.tree.item(TENANT, turns[0].conversation, told[0])
    prompt, cached, output = summary.cost
    question = len(engine.tokenizer.segment("user", REQUEST)) + len(engine.tokenizer.cue())
    assert 0 < prompt - cached <= question + 1
    assert 0 < output <= CONTEXT // 8
    counts = parts.compactor.counts
    assert counts.prompt >= prompt and counts.output >= output


class Paying(Nobody):
    """A key that pays."""

    def __init__(self) -> None:
        self.key = new_token(TENANT, os.urandom(7), os.urandom(32))[0]


async def test_whoever_pays_for_the_answers_pays_for_the_summary(role, store):
    """Once, as one request more, to the token what the item says; nobody pays for what was never written."""
    chat, _, parts = role
    payer, conversation, paid = Paying(), None, []
    for number in range(8):
        place = {"conversation": conversation} if conversation else {}
        ask = parse({"input": f"Word {number} " + "x " * 20, **ASK, **place})
        response, _ = await chat.respond(TENANT, ask, watch=False, payer=payer)
        conversation = response.conversation
        paid.append((await ended(store, response.id)).outcome.usage)
        await quiet(parts)
    items = await chat.tree.all(TENANT, conversation, Page(100))
    costs = [item.cost for item in items if item.role is Role.SUMMARY]
    assert costs
    while await store.accounts.settle():
        pass
    (used,) = await store.accounts.used(TENANT, "2020-01-01", "2099-01-01")
    assert used.answers == 8 + len(costs)
    assert used.usage.prompt == sum(u.prompt for u in paid) + sum(cost[0] for cost in costs)
    assert used.usage.cached == sum(u.cached for u in paid) + sum(cost[1] for cost in costs)
    assert used.usage.output == sum(u.output for u in paid) + sum(cost[2] for cost in costs)


async def test_the_next_summary_is_made_of_the_former_one(role, store, monkeypatch):
    """Its prompt has the former summary and what was dropped since, in this order."""
    chat, engine, parts = role
    sent = []
    want = parts.compactor.want
    monkeypatch.setattr(parts.compactor, "want", lambda wish: (sent.append(wish), want(wish)))
    turns = await talk(chat, store, parts, 14)
    assert len(sent) >= 2
    former = await chat.tree.item(TENANT, turns[0].conversation, summary_id(sent[0].covers))
    head = (*engine.tokenizer.head(None), *engine.tokenizer.segment("system", OPENING + former.text))
    assert sent[1].ids[: len(head)] == head
    branch = await store.conversations.branch(TENANT, turns[0].conversation, sent[1].covers, with_ids=True)
    names = [stored.item.id for stored in branch]
    since = [token for stored in branch[names.index(sent[0].covers) + 1 :] for token in stored.ids]
    assert sent[1].ids[len(head) : len(head) + len(since)] == tuple(since)


async def test_it_is_listed_and_goes_with_what_it_covers(role, store):
    """Listed beside the item that ends it; removed alone, or with anything that it covers."""
    chat, _, parts = role
    turns = await talk(chat, store, parts, 8)
    conversation, summary = turns[0].conversation, turns[-1].outcome.ledger.summary
    branch = await chat.tree.branch(TENANT, conversation)
    listed = [item.id for item in await chat.tree.with_summaries(TENANT, conversation, branch)]
    covers = (await chat.tree.item(TENANT, conversation, summary)).parent
    assert listed[listed.index(covers) - 1] == summary
    assert summary in {i.id for i in await chat.tree.all(TENANT, conversation, Page(100))}
    await chat.tree.remove(TENANT, conversation, summary)
    plain = await asked(chat, store, input="Word", conversation=conversation, **ASK)
    assert plain.status is Status.INCOMPLETE and plain.outcome.ledger.summary != summary
    await quiet(parts)
    again = await asked(chat, store, input="Word", conversation=conversation, **ASK)
    assert again.outcome.ledger.summary  # written again, as it was missing
    await quiet(parts)
    await chat.tree.remove(TENANT, conversation, branch[2].id)
    left = await chat.tree.all(TENANT, conversation, Page(100))
    assert {item.role for item in left} == {Role.USER, Role.ASSISTANT}


async def test_a_fork_takes_it_along(role, store):
    """Its next turn is sent the same summary behind the head, to the id, whatever becomes of the original."""
    chat, engine, parts = role
    turns = await talk(chat, store, parts, 9)
    conversation, summary = turns[0].conversation, turns[-1].outcome.ledger.summary
    kept = await store.conversations.some(TENANT, conversation, [summary])
    fork = await chat.tree.fork(TENANT, conversation, None, None)
    assert await store.conversations.some(TENANT, fork.id, [summary]) == kept and kept[0].ids
    await chat.tree.remove(TENANT, conversation, summary)
    forked = await asked(chat, store, input="Word", conversation=fork.id, **ASK)
    assert (forked.outcome.ledger.summary, forked.outcome.ledger.summary_tokens) == (
        summary,
        len(kept[0].ids),
    )
    new = len(engine.tokenizer.segment("user", "Word")) + len(engine.tokenizer.cue())
    usage = forked.outcome.usage
    assert usage.prompt - usage.cached <= new + len(engine.tokenizer.tail((0,))) + 1
    earlier = await chat.tree.fork(TENANT, conversation, turns[0].outcome.item.id, None)
    assert await store.conversations.some(TENANT, earlier.id, [summary]) == [None]


async def test_real_work_stops_it_at_once(store):
    """A turn that comes in its middle does not wait for it; it is tried again and written later."""
    async with scripted(context=CONTEXT, tokens_per_second=100.0) as engine, worker(store, engine) as running:
        while not await store.registry.models():
            await asyncio.sleep(0.005)
        chat, parts = web_of(store), running._parts
        turns = await talk(chat, store, parts, 3, settle=False, max_output_tokens=30)
        place = {"conversation": turns[0].conversation, "max_output_tokens": 10}
        while parts.compactor.idle:
            await asked(chat, store, input="y " * 60, **{**ASK, **place})
        async with asyncio.timeout(60):
            while parts.compactor._request is None:
                await asyncio.sleep(0.005)
        engine._pace = 0.001  # from now on nothing gets a second token
        other = await asked(chat, store, input="Somebody else", **{**ASK, "max_output_tokens": 1})
        assert other.status is Status.INCOMPLETE
        assert (parts.compactor.counts.aborted, parts.compactor.counts.written) == (1, 0)
        engine._pace = 2000.0
        await quiet(parts)
        assert parts.compactor.counts.written >= 1


async def test_without_a_summary_the_cut_is_plain(role, store, monkeypatch):
    """The model fails, or writes nothing: the conversation goes on as without compaction."""
    chat, engine, parts = role
    generate = engine.generate

    def fails(request):
        if request.sampling.max_tokens == CONTEXT // 8:
            raise EngineError("not now")
        return generate(request)

    monkeypatch.setattr(engine, "generate", fails)
    turns = await talk(chat, store, parts, 10)
    assert all(response.status is Status.INCOMPLETE for response in turns)
    assert parts.compactor.counts.failed >= 1 and not parts.compactor.counts.written
    assert turns[-1].outcome.ledger.cut and not turns[-1].outcome.ledger.summary


async def test_a_message_that_fits_only_without_the_summary_goes_without_it(role, store):
    """A summary never makes a message too long; the next cut's summary then says what this one said, too."""
    chat, engine, parts = role
    turns = await talk(chat, store, parts, 8)
    ledger = turns[-1].outcome.ledger
    assert ledger.summary_tokens > 20
    room = CONTEXT - 6 - 40 - len(engine.tokenizer.head(None)) - len(engine.tokenizer.cue())
    text = "x "
    while len(engine.tokenizer.segment("user", text)) < room - ledger.summary_tokens // 2:
        text += "x "
    assert room - ledger.summary_tokens < len(engine.tokenizer.segment("user", text)) <= room
    place = {**ASK, "conversation": turns[0].conversation}
    long = await asked(chat, store, input=text, **place)
    assert long.status is Status.INCOMPLETE, long.outcome.failure
    assert long.outcome.ledger.summary is None and long.outcome.ledger.sent <= CONTEXT - 46
    replayed = await send_again(store.conversations, store.turns, store.tapes, TENANT, long.id)
    assert replayed.same
    told = None
    for _ in range(4):  # as soon as the long message is dropped there is room for a summary again
        await quiet(parts)
        told = (await asked(chat, store, input="And? " * 10, **place)).outcome.ledger.summary
        if told is not None:
            break
    assert told not in (None, ledger.summary)


async def test_nothing_is_summarised_unasked(role, store):
    """Compaction is an option."""
    chat, _, parts = role
    await talk(chat, store, parts, 9, truncation="auto")
    assert parts.compactor.counts.prompt == 0
