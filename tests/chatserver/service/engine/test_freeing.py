"""KV that belongs to nobody any more: freed on delete, on the removal of a branch, on a cut and on close."""

from dataclasses import replace

import pytest

from chatserver.domain.response import Truncation
from chatserver.errors import NotFound
from engine.contract import EngineError
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
from tests.chatserver.service.web.test_warmth import asking, reported

RULES = "You are a guide to the trees of the north and their many names."


async def test_deleting_a_conversation_frees_all_that_only_it_holds(store):
    """The count is exact; what it shares with another conversation stays, and that one still hits all of it."""
    async with scripted() as engine, worker(store, engine):
        await reported(store)
        other = await run_turn(store, first_turn("Birch?", instructions=RULES))
        cached = (await engine.health()).kv_cached
        mine = await run_turn(store, first_turn("Oak?", instructions=RULES))
        mine = await run_turn(store, next_turn(mine, "How old?", instructions=RULES))
        grown = (await engine.health()).kv_cached - cached
        await store.conversations.delete(TENANT, mine.conversation)
        assert await asking(store).released(TENANT, mine.conversation) == grown > 0
        assert (await engine.health()).kv_cached == cached
        assert await asking(store).released(TENANT, mine.conversation) == 0
        before = other.outcome.usage
        after = await run_turn(store, next_turn(other, "And?", instructions=RULES))
        assert after.outcome.usage.cached >= before.prompt + before.output - 1


async def test_removing_a_branch_leaves_the_other_one_warm(store):
    """Two answers to one question: the one that is removed goes, the other one and the question stay."""
    async with scripted() as engine, worker(store, engine):
        await reported(store)
        asked = await run_turn(store, first_turn("One"))
        stays = await run_turn(store, next_turn(asked, "Two"))
        cached = (await engine.health()).kv_cached
        goes = await run_turn(store, replace(next_turn(asked, "Other"), exclusive=False))
        grown = (await engine.health()).kv_cached - cached
        await store.conversations.remove(TENANT, goes.conversation, goes.inputs[0], 0)
        assert await asking(store).released(TENANT, goes.conversation) == grown > 0
        before = stays.outcome.usage
        after = await run_turn(store, replace(next_turn(stays, "Three"), exclusive=False))
        assert after.outcome.usage.cached >= before.prompt + before.output - 1


async def test_removing_the_last_turn_leaves_what_is_above_it_warm(store):
    """The head moves up: what the next turn begins with stays, and is known to be there."""
    async with scripted() as engine, worker(store, engine):
        await reported(store)
        first = await run_turn(store, first_turn("One"))
        cached = (await engine.health()).kv_cached
        last = await run_turn(store, next_turn(first, "Two"))
        grown = (await engine.health()).kv_cached - cached
        await store.conversations.remove(TENANT, last.conversation, last.inputs[0], 0)
        freed = await asking(store).released(TENANT, last.conversation)
        # the first answer's last token and its end were computed by the second turn, and are part of what stays
        assert grown - 3 <= freed < grown
        (report,) = await asking(store).reports(TENANT, last.conversation)
        assert report.warm == report.prefix
        before = first.outcome.usage
        after = await run_turn(store, next_turn(first, "Three"))
        assert after.outcome.usage.cached >= before.prompt + before.output - 1


async def test_a_cut_frees_what_it_left(store):
    """Sixty turns over a small window hold about one window of KV, not all prefixes since the beginning."""
    async with scripted(context=1024) as engine, worker(store, engine) as role:
        response = await run_turn(store, first_turn("x " * 20, truncation=Truncation.AUTO))
        cuts = {response.outcome.ledger.cut}
        for _ in range(60):
            await at_rest(role)
            response = await run_turn(store, next_turn(response, "y " * 20, truncation=Truncation.AUTO))
            cuts.add(response.outcome.ledger.cut)
            usage = response.outcome.usage
            assert (await engine.health()).kv_cached <= 2 * 1024
        assert len(cuts) > 3
        assert usage.cached > 0


async def test_closing_a_conversation_frees_it_and_lets_it_go_on(store):
    """All of its KV goes, though its items are there; the next turn computes it again."""
    async with scripted() as engine, worker(store, engine):
        await reported(store)
        response = await run_turn(store, first_turn("x " * 100))
        held = (await engine.health()).kv_cached
        assert await asking(store).close(TENANT, response.conversation) == held
        after = await run_turn(store, next_turn(response, "And?"))
        assert after.outcome.usage.cached == 0
        for tenant, conversation in (("other", response.conversation), (TENANT, identifier("conv"))):
            with pytest.raises(NotFound):
                await asking(store).close(tenant, conversation)


async def test_a_turn_that_ends_while_its_cache_is_closed_does_not_keep_it(store, monkeypatch):
    """What is noted of the cache between the question and the answer goes, too: all was asked for."""
    async with scripted() as engine, worker(store, engine) as role:
        await reported(store)
        response = await run_turn(store, first_turn("x " * 100))
        prompts, prefixes = role._parts.prompts, role._parts.prefixes
        upcoming_of = prompts.upcoming_of

        async def meanwhile(tenant, conversation):
            (known,) = prefixes.known(TENANT, conversation)
            prefixes.computed(TENANT, conversation, (*known.ids, 7, 8, 9), None, "a newer answer")
            return await upcoming_of(tenant, conversation)

        monkeypatch.setattr(prompts, "upcoming_of", meanwhile)
        assert await asking(store).close(TENANT, response.conversation) > 100
        assert not prefixes.known(TENANT, response.conversation)


async def test_what_a_turn_computed_is_known_before_its_end(store, monkeypatch):
    """Who sees the end and asks at once is told what is warm, and what is deleted then is freed."""
    async with scripted() as engine, worker(store, engine) as role:
        finish, known = role._parts.turns.finish, []

        async def look(response, *args, **options):
            known.extend(role._parts.prefixes.known(TENANT, response.conversation))
            return await finish(response, *args, **options)

        monkeypatch.setattr(role._parts.turns, "finish", look)
        usage = (await run_turn(store, first_turn("x " * 100))).outcome.usage
        assert [len(one.ids) for one in known] == [usage.prompt + usage.output - 1]


async def test_nobody_can_tell(store, monkeypatch):
    """No engine, an engine that fails, a store that is away: null, and the deletion stands."""
    async with scripted() as engine, worker(store, engine) as role:
        await reported(store)
        response = await run_turn(store, first_turn("x"))

        async def fail(*_):
            raise EngineError("too busy")

        monkeypatch.setattr(engine, "release", fail)
        await store.conversations.delete(TENANT, response.conversation)
        assert await asking(store, 0.1).released(TENANT, response.conversation) is None
        await role.drain()
        assert await asking(store, 0.1).released(TENANT, response.conversation) is None
