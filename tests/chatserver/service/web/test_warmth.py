"""What is warm: asked by the web role, answered by the engine role, over a real store."""

import asyncio
from dataclasses import replace

import pytest

from chatserver.domain.response import Truncation
from chatserver.errors import Conflict, NotFound
from chatserver.ports.caches import Warm
from chatserver.service.web.tree import Tree
from chatserver.service.web.warmth import Warmth
from tests.chatserver.service.engine_role import (
    TENANT,
    at_rest,
    first_turn,
    identifier,
    next_turn,
    run_turn,
    scripted,
    worker,
)


def asking(store, patience: float = 60.0) -> Warmth:
    return Warmth(store.conversations, store.caches, store.registry, patience)


async def reported(store, count: int = 1) -> None:
    """Wait until the engines have announced themselves."""
    async with asyncio.timeout(60):
        while len(await store.registry.engines()) < count:
            await asyncio.sleep(0.005)


async def test_the_report_is_right_where_an_answer_was_deleted(store):
    """The next turn is cut where the report and idle work would cut it, also when no answer's end said so."""
    async with scripted(context=1024) as engine, worker(store, engine) as role:
        response = await run_turn(store, first_turn("x " * 20, truncation=Truncation.AUTO))
        await reported(store)
        moved = 0
        for number in range(24):
            await at_rest(role)
            last, deleted = response.item_id, number % 2
            if deleted:
                last = response.inputs[-1]
                await store.conversations.remove(TENANT, response.conversation, response.item_id, 0)
                await asking(store).released(TENANT, response.conversation)
            (report,) = await asking(store).reports(TENANT, response.conversation)
            text = "And?" if deleted else f"{number} " + "y " * 30
            turn = next_turn(response, text, truncation=Truncation.AUTO)
            item = replace(turn.items[0], parent=last)
            turn = replace(turn, response=replace(turn.response, parent=last), items=(item,))
            moved += deleted and report.cut != response.outcome.ledger.cut
            response = await run_turn(store, turn)
            usage = response.outcome.usage
            new = len(engine.tokenizer.segment("user", text)) + len(engine.tokenizer.cue())
            assert report.cut == response.outcome.ledger.cut
            assert report.prefix - report.warm + new == usage.prompt - usage.cached
        assert moved, "no cut was chosen without an answer"


@pytest.mark.parametrize("page", [1, 64])
async def test_the_report_says_what_the_next_turn_prefills(store, page):
    """Over forty turns past the window, with regenerated answers: prefix − warm + the new message = prompt − cached.

    To the token with pages of one; within a page with larger ones.
    """
    async with scripted(context=1024, page=page) as engine, worker(store, engine) as role:
        response = await run_turn(store, first_turn("x " * 20, truncation=Truncation.AUTO))
        await reported(store)
        for number in range(40):
            await at_rest(role)
            (report,) = await asking(store).reports(TENANT, response.conversation)
            text = f"{number} " + "y " * 20
            before = response
            response = await run_turn(store, next_turn(response, text, truncation=Truncation.AUTO))
            usage = response.outcome.usage
            new = len(engine.tokenizer.segment("user", text)) + len(engine.tokenizer.cue())
            assert report.prefix + new == usage.prompt
            expected, computed = report.prefix - report.warm + new, usage.prompt - usage.cached
            assert (expected == computed) if page == 1 else (abs(expected - computed) < page)
            assert report.warm % page == 0 and report.page == page
            assert report.cut == response.outcome.ledger.cut
            if number % 9 == 8:  # the head moves to another branch
                again = next_turn(before, "again", truncation=Truncation.AUTO)
                response = await run_turn(store, replace(again, exclusive=False))


async def test_another_engine_is_cold_until_the_user_types(store):
    """After a restart nothing is warm; `expect` has the prefix made, and then it is."""
    async with scripted() as engine, worker(store, engine) as role:
        response = await run_turn(store, first_turn("x " * 200))
        await role.drain()
    async with scripted() as engine, worker(store, engine) as role:
        await reported(store)
        web = asking(store)
        (report,) = await web.reports(TENANT, response.conversation)
        assert report.warm == 0
        assert report.prefix >= response.outcome.usage.prompt
        await web.expect(TENANT, response.conversation)
        async with asyncio.timeout(60):
            while role._parts.prefixes.counts.finished == 0:
                await asyncio.sleep(0.005)
        (report,) = await web.reports(TENANT, response.conversation)
        assert report.warm == report.prefix
        after = await run_turn(store, next_turn(response, "And?"))
        assert after.outcome.usage.cached >= report.prefix - 1


async def test_a_full_conversation_is_made_warm_behind_its_cut(store):
    """What is made for a user who opens it is what the next turn sends, not the whole past."""
    async with scripted(context=1024) as engine, worker(store, engine):
        response = await run_turn(store, first_turn("x " * 20, truncation=Truncation.AUTO))
        for _ in range(20):
            response = await run_turn(store, next_turn(response, "y " * 20, truncation=Truncation.AUTO))
    async with scripted(context=1024) as engine, worker(store, engine) as role:
        async with asyncio.timeout(60):
            while role._parts.prefixes.counts.finished == 0:  # the new engine may not listen yet
                await asking(store).expect(TENANT, response.conversation)
                await asyncio.sleep(0.1)
        after = await run_turn(store, next_turn(response, "z", truncation=Truncation.AUTO))
        new = len(engine.tokenizer.segment("user", "z")) + len(engine.tokenizer.cue())
        assert after.outcome.usage.prompt - after.outcome.usage.cached <= new


async def test_no_engine_means_unknown(store):
    """Nobody answers: an empty list, at once."""
    async with scripted() as engine, worker(store, engine) as role:
        response = await run_turn(store, first_turn("x"))
        await role.drain()
    async with asyncio.timeout(30):
        assert await asking(store).reports(TENANT, response.conversation) == []


async def test_a_silent_engine_is_not_waited_for(store, monkeypatch):
    """An engine that announced itself and hangs costs the patience, not more."""
    async with scripted() as engine, worker(store, engine) as role:
        response = await run_turn(store, first_turn("x"))
        await reported(store)
        monkeypatch.setattr(role._outlook, "obey", lambda command: None)
        web = asking(store, 0.1)
        async with asyncio.timeout(60):
            assert await web.reports(TENANT, response.conversation) == []


async def test_unknown_and_foreign_are_the_same(store):
    """404 for both, and no engine hears of it."""
    async with scripted() as engine, worker(store, engine):
        response = await run_turn(store, first_turn("x"))
    for tenant, conversation in (
        ("other", response.conversation),
        (TENANT, identifier("conv")),
        (TENANT, "x"),
    ):
        with pytest.raises(NotFound):
            await asking(store).reports(tenant, conversation)
        with pytest.raises(NotFound):
            await asking(store).expect(tenant, conversation)


async def test_typing_is_told_once_in_a_while(store, monkeypatch):
    """However fast somebody types, the engines hear once in three seconds, and once a conversation."""
    heard = []
    monkeypatch.setattr(store.caches, "warm", lambda command: heard.append(command) or asyncio.sleep(0))
    async with scripted() as engine, worker(store, engine):
        response = await run_turn(store, first_turn("x"))
        other = await run_turn(store, first_turn("y"))
    web = asking(store)
    for _ in range(50):
        await web.expect(TENANT, response.conversation)
    await web.expect(TENANT, other.conversation)
    assert heard == [Warm(TENANT, response.conversation), Warm(TENANT, other.conversation)]


async def test_a_flood_of_questions_is_bounded(store):
    """Past the bound questions are dropped; the engine goes on answering turns."""
    async with scripted() as engine, worker(store, engine) as role:
        response = await run_turn(store, first_turn("x"))
        for number in range(500):
            role._outlook.obey(Warm(TENANT, f"{response.conversation[:-3]}{number:03x}"))
        assert len(role._outlook._tasks) <= 16
        await run_turn(store, next_turn(response, "y"))


async def test_a_fork_is_warm_and_cut_where_it_was(store):
    """Its first turn sends the same prefix as the conversation that it comes from."""
    async with scripted(context=1024) as engine, worker(store, engine) as role:
        response = await run_turn(store, first_turn("x " * 20, truncation=Truncation.AUTO))
        for _ in range(16):
            response = await run_turn(store, next_turn(response, "y " * 20, truncation=Truncation.AUTO))
        await at_rest(role)
        assert response.outcome.ledger.next_cut
        fork = await Tree(store.conversations).fork(TENANT, response.conversation, None, None)
        await reported(store)
        (report,) = await asking(store).reports(TENANT, fork.id)
        assert report.prefix - report.warm <= 3  # the last token and the end of the answer
        turn = next_turn(replace(response, conversation=fork.id), "z", truncation=Truncation.AUTO)
        after = await run_turn(store, turn)
        assert after.outcome.ledger.cut == response.outcome.ledger.next_cut
        new = len(engine.tokenizer.segment("user", "z")) + len(engine.tokenizer.cue())
        assert after.outcome.usage.prompt - after.outcome.usage.cached <= new + 3


async def test_a_running_turn_keeps_its_branch(store):
    """Nothing is removed under a turn's feet."""
    async with scripted(tokens_per_second=20) as engine, worker(store, engine):
        turn = first_turn("x")
        await store.turns.begin(turn, queue_bound=9)
        tree = Tree(store.conversations)
        with pytest.raises(Conflict):
            await tree.remove(TENANT, turn.response.conversation, turn.items[0].id)
