"""Grammars and calls on the real engine: what the model of 135 million parameters writes keeps to its form."""

import json

import pytest

from engine.answers import Form, PieceKind
from engine.contract import GenerateRequest, RequestRefused, Sampling

from .conftest import new_id

pytestmark = [pytest.mark.sglang, pytest.mark.asyncio(loop_scope="session")]

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
TOOLS = json.dumps(
    [
        {
            "type": "function",
            "function": {"name": "look_up", "description": "Find a person", "parameters": PERSON},
        }
    ]
)


async def answer(engine, form: Form, emitted: tuple[int, ...] = (), tokens: int = 80):
    """The ids of a greedy answer, and why it ended."""
    tokenizer = engine.tokenizer
    tools = form.tools if form.choice != "none" else ""
    ids = (*tokenizer.head(None, tools), *tokenizer.segment("user", "Who is Ada, 36?"), *tokenizer.cue())
    asked = GenerateRequest(
        new_id(), (*ids, *emitted), Sampling(tokens, temperature=0.0), form=form, emitted=len(emitted)
    )
    chunks = [chunk async for chunk in engine.generate(asked)]
    return tuple(i for chunk in chunks for i in chunk.ids), chunks[-1].finish


def text_of(engine, ids) -> str:
    decoder = engine.tokenizer.decoder()
    return "".join(decoder.push(token) for token in ids)


async def test_an_answer_keeps_to_its_schema_also_behind_a_crash(sglang_engine):
    """Cut anywhere, the grammar goes on where the answer was: the same ids."""
    form = Form(schema=json.dumps(PERSON))
    whole, finish = await answer(sglang_engine, form)
    assert finish == "stop"
    assert set(json.loads(text_of(sglang_engine, whole))) == {"name", "age"}
    for cut in (1, len(whole) // 2, len(whole) - 2):
        rest, _ = await answer(sglang_engine, form, whole[:cut])
        assert whole[:cut] + rest == whole


async def test_a_required_call_is_made(sglang_engine):
    """SGLang's parser reads what the grammar let the model write."""
    form = Form(tools=TOOLS, choice="look_up", parallel=False)
    ids, finish = await answer(sglang_engine, form)
    splitter, decoder = sglang_engine.splitter(form), sglang_engine.tokenizer.decoder(marks=True)
    pieces = [piece for token in ids for piece in splitter.push(decoder.push(token))] + list(splitter.flush())
    assert finish == "stop" and {piece.kind for piece in pieces} == {PieceKind.CALL}
    assert pieces[0].name == "look_up"
    assert set(json.loads("".join(piece.text for piece in pieces))) == {"name", "age"}


async def test_a_schema_that_cannot_be_kept_is_refused(sglang_engine):
    for form, field in (
        (Form(schema='{"type": "objekt"}'), "schema"),
        (Form(schema='{"type": "object", "not": {}}'), "schema"),
        (Form(tools=TOOLS.replace('"object"', '"objekt"')), "tools[0].parameters"),
    ):
        with pytest.raises(RequestRefused) as error:
            sglang_engine.splitter(form)
        assert error.value.field == field
    with pytest.raises(RequestRefused):
        sglang_engine.tokenizer.cue(True)  # SmolLM2 does not reason


async def test_a_bias_and_a_floor_decide(sglang_engine):
    """100 more on one logit makes it the choice; a floor of 1 leaves the likeliest alone."""
    tokenizer = sglang_engine.tokenizer
    ids = (*tokenizer.head(None), *tokenizer.segment("user", "Hi"), *tokenizer.cue())
    (wanted,) = tokenizer.encode(" tide")

    async def first(**sampling) -> int:
        asked = GenerateRequest(new_id(), ids, Sampling(1, **sampling))
        (token,) = [i async for chunk in sglang_engine.generate(asked) for i in chunk.ids]
        return token

    assert await first(temperature=0.0, logit_bias=((wanted, 100.0),)) == wanted
    greedy = await first(temperature=0.0)
    assert {await first(temperature=2.0, min_p=1.0, seed=seed) for seed in range(5)} == {greedy}


async def test_what_was_written_is_written_less_or_more(sglang_engine):
    """A greedy answer that goes round in circles does not under a penalty; the reverse of one keeps it in one place."""
    tokenizer = sglang_engine.tokenizer
    ids = (*tokenizer.head(None), *tokenizer.segment("user", "Say no."), *tokenizer.cue())

    async def kinds(penalty: float) -> int:
        sampling = Sampling(24, temperature=0.0, repetition_penalty=penalty, ignore_end=True)
        asked = GenerateRequest(new_id(), ids, sampling)
        return len({i async for chunk in sglang_engine.generate(asked) for i in chunk.ids})

    assert await kinds(0.5) < await kinds(1.0) < await kinds(2.0) == 24
