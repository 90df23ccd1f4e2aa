"""Reasoning from request to tape: split, counted, dropped from later prompts, the same for who resumes anywhere."""

from __future__ import annotations

import asyncio

import orjson

from chatserver.domain.item import PartKind
from chatserver.domain.tape import Cursor
from chatserver.service.engine.written import Written
from chatserver.service.web.replay import replay
from chatserver.wire.response_events import ResponseEvents
from tests.chatserver.service.engine.test_going_on import asked, web_of
from tests.chatserver.service.engine_role import (
    first_turn,
    outlived,
    run_turn,
    scripted,
    stateless,
    worker,
)

THINKING = {"thinking": True, "ignore_end": False, "max_output_tokens": 400}


def events_of(response, records, after: int = -1) -> list[dict]:
    """What a client that resumes after a position gets."""
    cursor, encoder = Cursor(after), ResponseEvents(response)
    taken = [new for record in records if (new := cursor.take(record)) is not None]
    return [orjson.loads(event.data) for record in taken for event in encoder.encode(record, after)]


async def test_reasoning_is_a_part_of_its_own(store):
    """Two items, reasoning first; its tokens are counted, marks included."""
    async with scripted() as engine, worker(store, engine):
        response = await run_turn(store, first_turn("Hi", **THINKING))
        thought, text = response.outcome.item.parts
        assert (thought.kind, text.kind) == (PartKind.REASONING, PartKind.TEXT)
        assert thought.text and text.text == response.outcome.item.text
        assert 0 < response.outcome.usage.reasoning < response.outcome.usage.output
        assert response.outcome.usage.reasoning == thought.width  # every token and the mark that ends it
        kinds = [event["type"] for event in events_of(response, await store.tapes.read(response.id, -1))]
        order = [kind for at, kind in enumerate(kinds) if kind != kinds[at - 1]]
        assert order == [
            "response.created",
            "response.queued",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.reasoning_text.delta",
            "response.reasoning_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]


async def test_who_resumes_anywhere_gets_the_same_events(store):
    """From every position the rest is what it would have been, wherever the records were cut."""
    async with scripted() as engine, worker(store, engine):
        response = await run_turn(store, stateless("Hi", **THINKING))
        records = await store.tapes.read(response.id, -1)

    def told(events):
        text = [event["delta"] for event in events if event["type"].endswith(".delta")]
        rest = [event for event in events if not event["type"].endswith(".delta")]
        return "".join(text), [(event["type"], event["sequence_number"]) for event in rest]

    whole = events_of(response, records)
    for after in range(records[-1].last):
        text, rest = told(events_of(response, records, after))
        assert told(whole)[0].endswith(text)
        assert rest == [pair for pair in told(whole)[1] if pair[1] > after]


async def test_an_expired_tape_has_the_same_numbers(store):
    """What is read from the stored response has the structure and the positions of the tape that is gone."""
    async with scripted() as engine, worker(store, engine):
        response = await run_turn(store, stateless("Hi", **THINKING))
        records = await store.tapes.read(response.id, -1)
    events = [events_of(response, found) for found in (records, replay(response))]
    told = [
        [(e["type"], e["sequence_number"]) for e in found if not e["type"].endswith("delta")]
        for found in events
    ]
    assert told[0] == told[1]


async def test_an_answer_goes_on_in_the_middle_of_its_reasoning(store):
    """The engine dies after every few tokens: parts, ids and counts are those of an undisturbed answer."""
    async with scripted() as engine, worker(store, engine):
        whole = await run_turn(store, stateless("Hi", **THINKING))
    turn = stateless("Hi", **THINKING)
    response = await outlived(store, turn, fail_after=7)
    assert response.outcome.item.parts == whole.outcome.item.parts
    assert response.outcome.usage.reasoning == whole.outcome.usage.reasoning
    assert response.outcome.usage.output == whole.outcome.usage.output
    assert response.claim > 2


async def test_a_cut_off_answer_goes_on_in_its_reasoning(store):
    """`continue` begins with what was written, part by part."""
    ask = {"temperature": 0, "reasoning": {"effort": "high"}, "truncation": "auto"}
    async with scripted() as engine, worker(store, engine):
        while not await store.registry.models():
            await asyncio.sleep(0.005)
        chat = web_of(store)
        whole = await asked(chat, store, input="Hi", max_output_tokens=400, **ask)
        part = await asked(chat, store, input="Hi", max_output_tokens=5, **ask)
        assert [p.kind for p in part.outcome.item.parts] == [PartKind.REASONING]
        more = await asked(chat, store, **{"continue": part.id, "max_output_tokens": 400})
        texts = [[(p.kind, p.text) for p in r.outcome.item.parts] for r in (whole, more)]
        assert texts[0] == texts[1]


async def test_what_is_read_back_is_what_was_written(store):
    """A tape read back in pieces leads to the same account."""
    async with scripted() as engine, worker(store, engine):
        response = await run_turn(store, stateless("Hi", **THINKING))
        again = Written(response.item_id)
        await again.read_back(store.tapes, response.id)
        assert again.parts == response.outcome.item.parts
        assert again.text == response.outcome.item.text
        assert len(again.ids) == response.outcome.usage.output
