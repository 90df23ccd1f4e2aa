"""The ledger: what it says is what the engine was sent; and what the engine was sent is what is stored."""

import asyncio
import contextlib
from dataclasses import replace

import pytest

from chatserver.domain.item import Item, Role
from chatserver.domain.response import Status, Truncation
from chatserver.ports.turns import NewTurn
from chatserver.service.operation.again import send_again
from engine.contract import EngineError
from engine.token_contract import Shown
from tests.chatserver.service.engine_role import (
    TENANT,
    at_rest,
    ended,
    first_turn,
    identifier,
    next_turn,
    response_for,
    run_turn,
    scripted,
    tokens_on_tape,
    worker,
)

AUTO = {"truncation": Truncation.AUTO, "instructions": "Be brief."}


@contextlib.asynccontextmanager
async def watched(**options):
    """A scripted engine and the prompts that it was sent."""
    async with scripted(**options) as engine:
        sent, generate = [], engine.generate

        def note(request):
            sent.append(request.ids)
            return generate(request)

        engine.generate = note
        yield engine, sent


async def ids_of(store, response) -> dict[str, tuple[int, ...]]:
    branch = await store.conversations.branch(TENANT, response.conversation, response.item_id, with_ids=True)
    return {stored.item.id: stored.ids for stored in branch}


async def test_every_span_holds_the_items_ids(store):
    """Over a conversation past its window: head, spans and cue are the prompt, to the token."""
    async with watched(context=1024) as (engine, sent), worker(store, engine):
        response = await run_turn(store, first_turn("x " * 20, **AUTO))
        for number in range(30):
            response = await run_turn(store, next_turn(response, f"{number} " + "y " * 20, **AUTO))
            stored = await ids_of(store, response)
            ledger = response.outcome.ledger.of_branch(list(stored))
            assert ledger.sent == len(sent[-1])
            assert sent[-1][: ledger.head] == engine.tokenizer.head("Be brief.")
            for item, (first, end) in zip(ledger.kept, ledger.spans, strict=True):
                assert sent[-1][first:end] == stored[item]
            assert sent[-1][ledger.spans[-1][1] :] == engine.tokenizer.cue()
        assert ledger.dropped and ledger.cut


async def test_a_system_item_is_the_head(store):
    """Its span begins the prompt."""
    system, user = (Item(identifier("msg"), None, role, "Hi") for role in (Role.SYSTEM, Role.USER))
    turn = NewTurn(
        response_for(conversation=identifier("conv"), inputs=(system.id, user.id)),
        (system, user),
        create=True,
    )
    async with scripted() as engine, worker(store, engine):
        ledger = (await run_turn(store, turn)).outcome.ledger.of_branch([system.id, user.id])
    assert ledger.kept == (system.id, user.id)
    assert ledger.spans[0] == (0, ledger.head) and ledger.spans[1][0] == ledger.head


async def test_a_giant_message_is_cut_inside_and_stays_so(store):
    """Its ends are sent, the next turn begins with the same tokens, and the first one can be replayed."""
    options = {**AUTO, "cut_inside": True}
    async with watched(context=1024) as (engine, sent), worker(store, engine) as role:
        giant = await run_turn(store, first_turn("word " * 3000, **options))
        trim = giant.outcome.ledger.trim
        assert giant.status is not Status.FAILED and trim.count > 1500
        stored = (await ids_of(store, giant))[trim.item_id]
        first, end = giant.outcome.ledger.of_branch(list(giant.inputs)).spans[0]
        assert sent[0][first:end] == (*stored[: trim.first], *stored[trim.first + trim.count :])
        await at_rest(role)
        after = await run_turn(store, next_turn(giant, "And?", **options))
        assert after.outcome.ledger.trim == trim
        assert sent[1][: len(sent[0])] == sent[0]
        assert after.outcome.usage.cached >= giant.outcome.usage.prompt + giant.outcome.usage.output - 1
        for response in (giant, after):
            found = await send_again(store.conversations, store.turns, store.tapes, TENANT, response.id)
            assert found.same is True


async def test_without_leave_a_giant_message_is_refused_with_the_counts(store):
    """The error says how much fits, how much came, and what could be done; the input is taken back."""
    async with scripted(context=1024) as engine, worker(store, engine):
        before = await run_turn(store, first_turn("x", **AUTO))
        refused = await run_turn(store, next_turn(before, "word " * 3000, **AUTO))
        failure = refused.outcome.failure
        assert (failure.status, failure.code, failure.param) == (400, "context_length_exceeded", "input")
        for words in ("1024 tokens", "leaves 998", "cut_inside"):
            assert words in failure.message
        again = await run_turn(store, next_turn(before, "y", **AUTO))
        assert again.outcome.ledger.items == 3


async def test_the_template_of_another_model_rebuilds_the_ids_once(store):
    """Under another template all ids are made again, said in that turn's ledger, and kept for the next."""
    async with scripted() as engine, worker(store, engine):
        response = await run_turn(store, first_turn("x " * 20))
        response = await run_turn(store, next_turn(response, "y " * 20))
        assert response.outcome.ledger.rebuilt == 0
    async with watched() as (engine, sent):
        engine._card = replace(engine.card, template_hash="another")
        async with worker(store, engine):
            rebuilt = await run_turn(store, next_turn(response, "z"))
            after = await run_turn(store, next_turn(rebuilt, "z"))
    assert (rebuilt.outcome.ledger.rebuilt, rebuilt.outcome.ledger.template_hash) == (4, "another")
    assert after.outcome.ledger.rebuilt == 0
    assert sent[1][: len(sent[0])] == sent[0]
    assert after.outcome.usage.cached >= rebuilt.outcome.usage.prompt


async def test_an_answer_that_fails_in_its_middle_keeps_its_account(store, monkeypatch):
    """What was sent and what it cost is known, though the engine failed."""
    async with scripted() as engine, worker(store, engine):
        generate = engine.generate

        async def fails(request):
            async for chunk in generate(request):
                yield chunk
                raise EngineError("a broken kernel")

        monkeypatch.setattr(engine, "generate", fails)
        failed = await run_turn(store, first_turn("x " * 20))
    outcome = failed.outcome
    assert failed.status is Status.FAILED
    assert outcome.usage.prompt == outcome.ledger.sent > 20
    assert outcome.usage.output >= 1
    assert outcome.ledger.items == 1


@pytest.mark.parametrize("options", [{}, {"stop": ("",)}])
async def test_a_crash_between_answer_and_storing_loses_and_doubles_nothing(store, monkeypatch, options):
    """All tokens are on the tape, the end is not stored: the next claim ends the answer as it was, once."""
    async with scripted() as engine:
        async with worker(store, engine):
            whole = await run_turn(store, first_turn("Tell me.", max_output_tokens=40))
        if options:
            options = {"stop": (whole.outcome.item.text[40:46],)}
        died = asyncio.Event()

        async def dies(*_, **__):
            died.set()
            await asyncio.Event().wait()  # the process is killed here

        turn = first_turn("Tell me.", max_output_tokens=40, **options)
        with monkeypatch.context() as broken:
            async with worker(store, engine, lease=0.3) as role:
                broken.setattr(role._parts.turns, "finish", dies)
                await store.turns.begin(turn, queue_bound=9)
                await asyncio.wait_for(died.wait(), 60)
                tokens = await tokens_on_tape(store, turn.response.id)
        async with worker(store, engine, lease=0.3):
            after = await ended(store, turn.response.id)
        assert after.claim >= 2
        assert await tokens_on_tape(store, turn.response.id) == tokens == after.outcome.usage.output
        expected = whole.outcome.item.text
        if options:
            expected = expected[: expected.index(options["stop"][0])]
        assert after.outcome.item.text == expected
        branch = await store.conversations.branch(TENANT, after.conversation, after.item_id, with_ids=True)
        assert [stored.item.id for stored in branch] == [*after.inputs, after.item_id]


async def test_a_template_that_drops_what_was_emitted_is_made_up_for_in_idle_time(store, monkeypatch):
    """Canonical ids that differ from what is cached: the next turn's prefix is prefilled before it comes."""
    async with scripted() as engine, worker(store, engine) as role:
        prompts, tokenizer = role._parts.prompts, engine.tokenizer

        async def canonical(emitted, *_):
            """As a template that no longer shows the first half, the reasoning, once it is history."""
            shown = emitted[len(emitted) // 2 :]
            return Shown((*tokenizer.cue(), *shown, *tokenizer.tail(shown)))

        monkeypatch.setattr(prompts.encoder, "shown", canonical)
        response = await run_turn(store, first_turn("x " * 200))
        for number in range(5):
            await at_rest(role)
            response = await run_turn(store, next_turn(response, f"And {number}?"))
            usage = response.outcome.usage
            new = len(tokenizer.segment("user", f"And {number}?")) + len(tokenizer.cue())
            assert usage.prompt - usage.cached <= new + 1
        assert role._parts.prefixes.counts.finished >= 5
