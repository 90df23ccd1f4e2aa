"""Log-probabilities from the engine to tape and outcome: of the text's tokens only, wherever an answer is cut."""

from __future__ import annotations

import asyncio

import pytest

from chatserver.domain.item import PartKind
from chatserver.domain.logprob import LEAST, Logprob
from chatserver.domain.tape import Delta, ItemClosed
from chatserver.service.engine import written
from chatserver.service.engine.likelihood import TextLogprobs, shown
from chatserver.service.engine.written import Written
from chatserver.service.web.replay import replay
from engine.answers import Piece, PieceKind
from engine.contract import TokenLogprob
from engine.scripted_tokenizer import END, ScriptedTokenizer
from tests.chatserver.service.engine.test_going_on import asked, web_of
from tests.chatserver.service.engine.test_reasoning import THINKING, events_of
from tests.chatserver.service.engine_role import outlived, run_turn, scripted, stateless, worker

EMOJI = "🙂".encode().decode("latin-1")


def text_of(logprobs) -> str:
    return b"".join(logprob.token.encode("latin-1") for logprob in logprobs).decode()


def on_tape(records) -> list[Logprob]:
    """What deltas told, one after the other."""
    deltas = [record.body for record in records if isinstance(record.body, Delta)]
    return [logprob for delta in deltas for piece in delta.logprobs for logprob in piece]


@pytest.mark.parametrize("more", [{}, THINKING, {"stop": ("a ",)}, {"ignore_end": False}])
async def test_they_spell_the_text(store, more):
    """Tape, end of the part, outcome: the same tokens, which spell the text; no mark, no reasoning, no end."""
    async with scripted() as engine, worker(store, engine):
        response = await run_turn(store, stateless("Hi", logprobs=2, **more))
        records = await store.tapes.read(response.id, -1)
    outcome = response.outcome
    told = on_tape(records)
    assert told and all(len(logprob.likeliest) == 2 for logprob in told)
    assert text_of(told).startswith(outcome.item.text)  # a stop string may begin within a token
    assert len(text_of(told[:-1])) < len(outcome.item.text)
    assert [p for part in outcome.logprobs for p in part] == told
    closed = [record.body for record in records if isinstance(record.body, ItemClosed)]
    assert [body.logprobs for body in closed] == list(outcome.logprobs)
    assert [bool(body.logprobs) for body in closed] == [body.kind is PartKind.TEXT for body in closed]
    assert closed[-1].logprobs[0] == shown(engine.tokenizer, *first_of(closed[-1]))


def first_of(closed) -> tuple[int, TokenLogprob]:
    """What the scripted engine says of the first token of a text."""
    from engine.scripted_request import logprob

    name = closed.logprobs[0].token.encode("latin-1").decode()
    (token,) = ScriptedTokenizer().encode(name)
    return token, logprob(token, 2)


async def test_none_are_kept_unless_asked_for(store):
    """The tape of others is what it was."""
    async with scripted() as engine, worker(store, engine):
        response = await run_turn(store, stateless("Hi"))
        records = await store.tapes.read(response.id, -1)
    assert not response.outcome.logprobs
    bodies = [record.body for record in records if isinstance(record.body, Delta | ItemClosed)]
    assert bodies and not any(body.logprobs for body in bodies)


async def test_an_engine_that_dies_loses_none(store):
    """The next one goes on behind what is on the tape: the same tokens, each once."""
    ask = {**THINKING, "logprobs": 1}
    async with scripted() as engine, worker(store, engine):
        whole = await run_turn(store, stateless("Hi", **ask))
    turn = stateless("Hi", **ask)
    response = await outlived(store, turn, fail_after=17)
    assert response.claim > 2
    assert response.outcome.logprobs == whole.outcome.logprobs
    assert on_tape(await store.tapes.read(response.id, -1)) == list(whole.outcome.logprobs[-1])


async def test_who_resumes_anywhere_gets_the_rest(store):
    """Log-probabilities of the deltas behind a position, and all of them at the end; also when the tape is gone."""
    async with scripted() as engine, worker(store, engine):
        response = await run_turn(store, stateless("Hi", logprobs=1))
        records = await store.tapes.read(response.id, -1)

    def told(events, kind):
        return [p for event in events if event["type"] == kind for p in event["logprobs"]]

    whole = events_of(response, records)
    expected = told(whole, "response.output_text.done")
    assert told(whole, "response.output_text.delta") == expected
    for after in range(records[-1].last):
        rest = told(events_of(response, records, after), "response.output_text.delta")
        assert expected[len(expected) - len(rest) :] == rest
        text = "".join(e["delta"] for e in events_of(response, records, after) if e["type"].endswith("delta"))
        assert b"".join(bytes(p["bytes"]) for p in rest).decode() == text
    gone = events_of(response, replay(response))
    for kind in ("response.output_text.delta", "response.output_text.done"):
        assert told(gone, kind) == expected
    assert gone[-1]["response"]["output"] == whole[-1]["response"]["output"]
    assert gone[-1]["response"]["output"][0]["content"][0]["logprobs"] == expected


async def test_an_answer_that_goes_on_has_those_of_its_own_tokens(store):
    """What another response wrote comes without."""
    ask = {"temperature": 0, "truncation": "auto", "include": ["message.output_text.logprobs"]}
    async with scripted() as engine, worker(store, engine):
        while not await store.registry.models():
            await asyncio.sleep(0.005)
        chat = web_of(store)
        part = await asked(chat, store, input="Hi", max_output_tokens=5, **ask)
        more = await asked(chat, store, **{"continue": part.id, "max_output_tokens": 20})
    (first,), (rest,) = part.outcome.logprobs, more.outcome.logprobs
    assert len(first) == 5 and text_of(first) + text_of(rest) == more.outcome.item.text


async def test_whole_forms_are_bounded(store, monkeypatch):
    """Deltas tell all; what is kept as a whole ends before the bound."""
    monkeypatch.setattr(written, "KEPT", 10)
    async with scripted() as engine, worker(store, engine):
        response = await run_turn(store, stateless("Hi", logprobs=2, max_output_tokens=30))
        records = await store.tapes.read(response.id, -1)
    assert list(response.outcome.logprobs[0]) == on_tape(records)[:3]
    assert len(on_tape(records)) == 30
    again = Written(response.item_id, logprobs=True)
    await again.read_back(store.tapes, response.id)
    assert again.logprobs == response.outcome.logprobs


def test_pieces_and_their_tokens():
    """Marks and dropped spaces are no text; a character of several tokens, and what was held back, is."""

    def fed(*tokens: tuple[str, str]) -> TextLogprobs:
        logprobs = TextLogprobs()
        for text, token in tokens:
            logprobs.feed(text, Logprob(token, -1.0))
        return logprobs

    def names(logprobs: TextLogprobs, text: str, kind: PieceKind = PieceKind.TEXT) -> list[str]:
        return [logprob.token for logprob in logprobs.take(Piece(kind, text))]

    after_mark = fed(("</think>", "</think>"), ("\n\n", "\n\n"), ("He", "He"))
    assert names(after_mark, "He") == ["He"] and names(after_mark, "He") == []
    assert names(fed(("<", "<"), ("b", "b")), "<b") == ["<", "b"]
    assert names(fed(("", EMOJI[:2]), ("🙂", EMOJI[2:])), "🙂") == [EMOJI[:2], EMOJI[2:]]
    assert names(fed(("", ""), ("a", "a")), "a") == ["a"]
    both = fed(("so", "so"), (".</think>Hi", ".</think>Hi"))
    assert names(both, "so.", PieceKind.REASONING) == [] and names(both, "Hi") == [".</think>Hi"]


def test_what_json_cannot_carry():
    """Minus infinity, which a grammar gives to all but one; an end token has no bytes."""
    found = shown(ScriptedTokenizer(), END, TokenLogprob(float("-inf"), ((65, float("-inf")),)))
    assert found == Logprob("", LEAST, (("A", LEAST),))
