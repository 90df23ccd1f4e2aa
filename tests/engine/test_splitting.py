"""SGLang's parsers behind our splitter: the parts of an answer do not depend on how its text comes in."""

import json
import re
from itertools import groupby

import pytest

from engine.answers import Form, Piece, PieceKind
from engine.splitting import splitter

TOOLS = json.dumps(
    [
        {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
        for name in ("weather", "add_two")
    ]
)
CALLS = (
    ("weather", '{"town": "Paris [è] <b> 1 < 2", "days": [1, {"a": {}}]}'),
    ("add_two", '{"a": 1, "b": -2.5, "note": "say \\"```json\\n{}\\" 🙂"}'),
)


def v3(*calls) -> str:
    shown = "\n".join(
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{arguments}\n```<｜tool▁call▁end｜>"
        for name, arguments in calls
    )
    return f"<｜tool▁calls▁begin｜>{shown}<｜tool▁calls▁end｜>"


def v31(*calls) -> str:
    shown = "".join(
        f"<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{arguments}<｜tool▁call▁end｜>"
        for name, arguments in calls
    )
    return f"<｜tool▁calls▁begin｜>{shown}<｜tool▁calls▁end｜>"


def hermes(*calls) -> str:
    return "\n".join(
        f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'
        for name, arguments in calls
    )


FORMS = {"deepseekv3": v3, "deepseekv31": v31, "qwen25": hermes, "qwen": hermes, "hermes": hermes}
REASONINGS = ("deepseek-r1", "deepseek-v3", "qwen3", "qwen3-thinking", None)
WHOLE = r"<｜[^｜]*｜>|</?think>|</?tool_call>"
"""Marks that are tokens of their own."""
THOUGHT, SAID = "\nShe asks < me > of [the] weather.\n\n", "\n\nI look: 1 < 2, <b>, `x` {y}."


def pieces_of(text: str, marks: str = WHOLE) -> list[str]:
    """The text as a tokenizer of the family would give it back: whole marks, words, runs of spaces."""
    return re.findall(rf"{marks}|\w+|\s+|.", text)


def read(pieces: list[str], reasoning: str | None, tools: str | None, forced: bool | None = True):
    """What the pieces of text become, each run of one part as one."""
    made = splitter(Form(thinking=bool(reasoning), tools=TOOLS if tools else ""), reasoning, forced, tools)
    return parts([*(p for text in pieces for p in made.push(text)), *made.flush()])


def parts(pieces: list[Piece]) -> list[tuple[str, str, str]]:
    """(kind, name, text) of each part."""
    found = []
    for (kind, _), group in groupby(pieces, lambda p: (p.kind, p.call)):
        run = list(group)
        assert all(not p.name for p in run[1:])
        found.append((kind, run[0].name, "".join(p.text for p in run)))
    return found


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("tools", FORMS)
@pytest.mark.parametrize("reasoning", REASONINGS)
@pytest.mark.parametrize("said", [SAID, ""])
def test_parts_do_not_depend_on_the_cuts(reasoning, tools, count, said):
    """One piece, token by token, two pieces with the cut at each boundary: the same parts, the arguments as written."""
    calls = CALLS[:count]
    text = (f"{THOUGHT}</think>" if reasoning else "") + said + "\n" + FORMS[tools](*calls)
    pieces = pieces_of(text)
    expected = [(PieceKind.CALL, name, arguments) for name, arguments in calls]
    for fed in ([text], pieces, *(["".join(pieces[:i]), "".join(pieces[i:])] for i in range(len(pieces)))):
        found = read(fed, reasoning, tools)
        if reasoning:
            kind, _, thought = found.pop(0)
            assert (kind, thought.strip()) == (PieceKind.REASONING, THOUGHT.strip()), fed
        if said:
            kind, _, told = found.pop(0)
            assert (kind, told.strip()) == (PieceKind.TEXT, said.strip()), fed
        assert found == expected, fed


@pytest.mark.parametrize("tools", ["qwen25", "hermes"])
def test_marks_may_be_written_in_plain_tokens(tools):
    """A small model that was told of Hermes' words has no tokens for them."""
    text = SAID + "\n" + hermes(*CALLS)
    whole = read([text], None, tools)
    assert [name for _, name, _ in whole] == ["", "weather", "add_two"]
    assert read(pieces_of(text, "[<>]"), None, tools) == whole
    assert read(list(text), None, tools) == whole


@pytest.mark.parametrize("tools", FORMS)
def test_what_was_cut_off_is_split_again_to_the_same(tools):
    """Behind a crash a fresh parser is fed what is on the tape: it says the same, and goes on alike."""
    pieces = pieces_of(f"{THOUGHT}</think>{SAID}\n{FORMS[tools](*CALLS)}")

    def made():
        return splitter(Form(thinking=True, tools=TOOLS), "deepseek-r1", True, tools)

    first = made()
    told = [list(first.push(text)) for text in pieces]
    for cut in range(len(pieces)):
        again = made()
        assert [list(again.push(text)) for text in pieces[:cut]] == told[:cut]
        assert [list(again.push(text)) for text in pieces[cut:]] == told[cut:]


@pytest.mark.parametrize("tools", FORMS)
def test_an_answer_cut_short_keeps_what_it_said(tools):
    """At no length is text lost or a mark shown; arguments are a beginning of those that were coming."""
    pieces = pieces_of(f"{SAID}\n{FORMS[tools](*CALLS)}")
    begins = len("".join(pieces_of(SAID)))
    for cut in range(1, len(pieces)):
        given = "".join(pieces[:cut])
        found = read(pieces[:cut], None, tools)
        text = "".join(t for kind, _, t in found if kind is PieceKind.TEXT)
        assert text.strip() == given[:begins].strip(), given
        for (_, name, arguments), (wanted, whole) in zip(
            [part for part in found if part[0] is PieceKind.CALL], CALLS, strict=False
        ):
            assert name == wanted
            assert whole.startswith(arguments), (given, arguments)


@pytest.mark.parametrize("text", ["a <", "a </tool", "a <tool_call", "a ```", "1 < 2 </b>", "[1] {2}"])
@pytest.mark.parametrize("tools", FORMS)
def test_text_that_looks_like_a_mark_is_text(tools, text):
    """Who may call and only talks is heard, to the last character."""
    assert read(pieces_of(text), None, tools) == [(PieceKind.TEXT, "", text)]
    assert read([text], None, tools) == [(PieceKind.TEXT, "", text)]


@pytest.mark.parametrize("tools", FORMS)
def test_text_goes_on_behind_calls(tools):
    """Not all models stop there: nothing of it is lost, and white space around calls is no text."""
    text = f"One.\n{FORMS[tools](CALLS[0])}\n\nAnd two: 1 < 2 .\n{FORMS[tools](CALLS[1])}\n"
    for fed in (pieces_of(text), [text]):
        found = read(fed, None, tools)
        assert [said.strip() for _, _, said in found] == [
            "One.",
            CALLS[0][1],
            "And two: 1 < 2 .",
            CALLS[1][1],
        ]


@pytest.mark.parametrize("tools", ["qwen25", "hermes"])
def test_arguments_may_spell_the_tags(tools):
    """In a string of theirs a tag is text."""
    call = ("weather", '{"town": "a </tool_call> b <tool_call> c"}')
    for fed in (pieces_of(hermes(call, CALLS[1])), [hermes(call, CALLS[1])], list(hermes(call, CALLS[1]))):
        assert read(fed, None, tools) == [(PieceKind.CALL, *call), (PieceKind.CALL, *CALLS[1])]


@pytest.mark.parametrize("tools", ["qwen25", "hermes"])
def test_calls_that_are_not_quite_right(tools):
    """Without arguments it is a call; of no tool of ours, or no JSON, it is text; no line break is no harm."""
    for body, expected in (
        ('{"name": "weather"}', (PieceKind.CALL, "weather", "{}")),
        ('{"name": "weather", "arguments": {}}', (PieceKind.CALL, "weather", "{}")),
        ('{"name": "rain", "arguments": {}}', None),
        ("weather!", None),
    ):
        for text in (f"<tool_call>{body}</tool_call>", f"<tool_call>\n{body}\n</tool_call>"):
            wanted = expected or (PieceKind.TEXT, "", text.replace("<tool_call>\n", "<tool_call>"))
            for fed in (pieces_of(text), [text], list(text)):
                assert read(fed, None, tools) == [wanted], fed


@pytest.mark.parametrize(
    ("reasoning", "forced"), [("qwen3", None), ("deepseek-v3", None), ("deepseek-r1", True)]
)
def test_reasoning_that_the_model_begins_itself(reasoning, forced):
    """Its own first mark is as good as the prompt's; without one there is no reasoning."""
    for fed in (lambda text: [text], pieces_of, list):
        found = read(fed("<think>" + THOUGHT + "</think>" + SAID), reasoning, "qwen25", forced)
        assert [(kind, text.strip()) for kind, _, text in found] == [
            (PieceKind.REASONING, THOUGHT.strip()),
            (PieceKind.TEXT, SAID.strip()),
        ]
        if forced is None:
            assert read(fed("Only text."), reasoning, "qwen25", None) == [(PieceKind.TEXT, "", "Only text.")]


@pytest.mark.parametrize("tools", ["deepseekv3", "deepseekv31"])
def test_a_call_without_arguments_has_empty_ones(tools):
    for written in ("", "{}"):
        text = FORMS[tools](("weather", written), CALLS[1])
        for fed in (pieces_of(text), [text]):
            assert read(fed, None, tools) == [(PieceKind.CALL, "weather", "{}"), (PieceKind.CALL, *CALLS[1])]
