"""`chatserver replay`: the same ids, the same answer; and what cannot be replayed says why."""

from dataclasses import replace

import pytest

from chatserver.domain.item import Item, Role
from chatserver.domain.response import Truncation
from chatserver.errors import BadRequest, ChatServerError, NotFound
from chatserver.ports.turns import NewTurn
from chatserver.service.operation.again import send_again, verdict
from tests.chatserver.service.engine_role import (
    TENANT,
    first_turn,
    identifier,
    next_turn,
    response_for,
    run_turn,
    scripted,
    stateless,
    worker,
)


async def replayed(store, response_id: str):
    return await send_again(store.conversations, store.turns, store.tapes, TENANT, response_id)


async def test_every_turn_of_a_long_conversation_replays(store):
    """Behind cuts, too: the ids of each turn are made again from the spans of its ledger."""
    async with scripted(context=1024) as engine, worker(store, engine):
        turns = [
            await run_turn(store, first_turn("x " * 20, truncation=Truncation.AUTO, instructions="Be brief."))
        ]
        for number in range(20):
            turn = next_turn(
                turns[-1], f"{number} " + "y " * 20, truncation=Truncation.AUTO, instructions="Be brief."
            )
            turns.append(await run_turn(store, turn))
        assert any(turn.outcome.ledger.cut for turn in turns)
        for turn in turns:
            found = await replayed(store, turn.id)
            assert found.same is True
            assert found.prompt == turn.outcome.usage.prompt
            assert "the same" in verdict(turn.id, found)


async def test_system_items_and_stateless_answers_replay(store):
    """The head is made from the first item again; a stateless answer is compared with its tape."""
    system, user = (Item(identifier("msg"), None, role, "Hi") for role in (Role.SYSTEM, Role.USER))
    response = response_for(conversation=identifier("conv"), inputs=(system.id, user.id))
    async with scripted() as engine, worker(store, engine):
        first = await run_turn(store, NewTurn(response, (system, user), create=True))
        assert first.outcome.ledger.pinned == 1
        assert (await replayed(store, first.id)).same is True
        assert (await replayed(store, (await run_turn(store, stateless())).id)).same is True


async def test_sampled_answers(store):
    """With a seed it is compared; without one only the prompt is."""
    async with scripted() as engine, worker(store, engine):
        seeded = await run_turn(store, first_turn("x", temperature=1.0, seed=7))
        assert (await replayed(store, seeded.id)).same is True
        free = await run_turn(store, first_turn("x", temperature=1.0))
        assert (await replayed(store, free.id)).same is None


async def test_a_difference_is_an_error(store, monkeypatch):
    """Another model under the same name: the answers differ, and the command fails."""
    async with scripted() as engine, worker(store, engine):
        response = await run_turn(store, first_turn("x"))
    async with scripted() as engine, worker(store, engine):
        from engine.scripted_script import Script

        monkeypatch.setattr(Script, "next", lambda self, may_end: 200)
        found = await replayed(store, response.id)
    assert found.same is False
    with pytest.raises(ChatServerError, match="NOT the same"):
        verdict(response.id, found)


async def test_what_cannot_be_replayed_says_so(store):
    """Unknown, foreign, and a prompt whose ids cannot be made again."""
    async with scripted() as engine, worker(store, engine) as role:
        response = await run_turn(store, first_turn("x"))
        with pytest.raises(NotFound):
            await replayed(store, identifier("resp"))
        with pytest.raises(NotFound):
            await send_again(store.conversations, store.turns, store.tapes, "other", response.id)
        prompts = role._parts.prompts
        encoder = prompts.encoder
        prompts._card = encoder._card = replace(prompts._card, template_hash="another")
        encoder._tokenizer = _Louder(encoder._tokenizer)
        with pytest.raises(BadRequest, match="another template"):
            await replayed(store, response.id)


class _Louder:
    """A tokenizer that ends every message with one token more."""

    def __init__(self, tokenizer) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def segment(self, role, text, calls=()):
        return (*self._tokenizer.segment(role, text, calls), 200)
