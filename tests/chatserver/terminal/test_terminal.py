"""The terminal chat's parts: what is painted, kept and read."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import stat
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from chatserver.client.events import event_of
from chatserver.client.results import Item, result_of
from chatserver.terminal import memory as memories
from chatserver.terminal.growing import Growing
from chatserver.terminal.keyboard import MAX_LINE, Lines
from chatserver.terminal.memory import Memory
from chatserver.terminal.painted import MOST_LINES, Painted
from chatserver.terminal.screens import Plain
from chatserver.terminal.talk import Talk
from chatserver.terminal.words import harmless, in_full, in_short

TEXT = "# Title\n\nA *paragraph*.\n\n- one\n- two\n\n```python\nx = 1\n\ny = 2\n```\n\nThe\u2028end.\n"


@given(st.lists(st.integers(0, len(TEXT)), max_size=10))
def test_settled_parts_are_the_text(cuts):
    """However it comes, the settled parts and the rest are the text, and code is never divided."""
    growing, parts, places = Growing(), [], [0, *sorted(cuts), len(TEXT)]
    for start, end in itertools.pairwise(places):
        growing.add(TEXT[start:end])
        parts.append(growing.settle())
    parts.append(growing.close())
    assert all(part.count("```") in (0, 2) for part in parts)
    assert "\n".join(part.rstrip("\n") for part in parts if part).replace("\n", "") == TEXT.replace("\n", "")


def painted(height: int = 30) -> tuple[Painted, io.StringIO]:
    out = io.StringIO()
    return Painted(Console(file=out, force_terminal=True, width=60, height=height)), out


async def test_an_answer_is_painted():
    """What was settled is printed once, as Markdown; control characters of the model never reach the terminal."""
    screen, out = painted()
    screen.begin()
    for line in TEXT.splitlines(keepends=True):
        screen.write(line.replace("end", "end\x1b]0;owned\x07\x9b31m"))
        while screen._due is not None:  # until it is painted
            await asyncio.sleep(0.01)
    screen.end("7 tokens")
    shown = out.getvalue()
    assert "owned" in shown  # as letters
    assert "\x1b]" not in shown
    assert "\x9b" not in shown
    last = shown.split("\x1b[2K")[-1]  # behind the last picture
    assert "The" in last
    assert "Title" not in last
    assert "7 tokens" in shown


async def test_pictures_are_bounded():
    """A long block costs a picture of its last lines, and slow painting makes pictures rarer."""
    screen, out = painted(height=200)
    screen.begin()
    screen.write("```\n" + "".join(f"line {i}\n" for i in range(5000)))
    screen._paint()
    picture = out.getvalue()
    assert "line 4999" in picture
    assert picture.count("line ") <= MOST_LINES
    assert screen._gap >= 0.1
    screen.end()
    assert "line 0" in out.getvalue()


async def test_a_slow_link_gets_fewer_pictures():
    """Where every picture takes 60 ms to write, painting leaves most of the time to others, and nothing is lost."""

    class Slow(io.StringIO):
        pictures = 0

        def write(self, text: str) -> int:
            if "word" in text:
                self.pictures += 1
                time.sleep(0.06)
            return super().write(text)

    out = Slow()
    screen = Painted(Console(file=out, force_terminal=True, width=60, height=20))
    screen.begin()
    began = time.monotonic()
    count = 0
    while time.monotonic() - began < 1.5 or not out.pictures:
        screen.write(f"word{count} ")
        count += 1
        await asyncio.sleep(0.005)
    assert 1 <= out.pictures <= 5  # 13 if they were painted as often as on a quick one
    screen.end()
    assert f"word{count - 1}" in out.getvalue()


def test_plain_text_is_the_answer_only():
    """Notes go elsewhere, the last line is ended, a status is told once."""
    out, notes = io.StringIO(), io.StringIO()
    screen = Plain(out, notes)
    screen.begin()
    for place in (3, 2):
        screen.status(f"waiting in the queue, place {place}")
    screen.write("a\nb")
    screen.end("figures")
    assert (out.getvalue(), notes.getvalue()) == ("a\nb\n", "(waiting in the queue, place 3)\n")


def test_harmless():
    """Newlines and tabs stay; what commands or confuses a terminal goes."""
    assert harmless("a\tb\nc\r\x1b[31m\x07\u202ed\u2066é") == "a\tb\nc[31mdé"


def test_memory(tmp_path, monkeypatch):
    """One conversation a server, bounded, its owner's only; a broken file is written anew."""
    monkeypatch.setattr(memories, "MAX_SERVERS", 3)
    folder = tmp_path / "state" / "chatserver"
    memory = Memory(folder)
    for number in range(5):
        memory.remember(f"http://{number}", f"conv_{number}")
    assert Memory(folder).last("http://4") == "conv_4"
    assert memory.last("http://1") is None
    memory.remember("http://4", None)
    assert memory.last("http://4") is None
    kept = folder / "chat.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for broken in ("{", "[]", json.dumps({"servers": 1})):
        kept.write_text(broken)
        assert memory.last("http://3") is None
    memory.remember("http://3", "conv_3")
    assert memory.last("http://3") == "conv_3"
    assert list(folder.iterdir()) == [kept]


def test_a_memory_that_cannot_be_kept_says_so(tmp_path):
    """And nothing else happens."""
    (tmp_path / "file").write_text("")
    memory = Memory(tmp_path / "file" / "chatserver")
    assert "nothing is remembered" in memory.problem
    memory.remember("http://1", "conv_1")
    assert memory.typed() is None


def test_what_was_typed_is_bounded(tmp_path, monkeypatch):
    """The older half goes, in whole entries."""
    monkeypatch.setattr(memories, "MAX_HISTORY", 1000)
    memory = Memory(tmp_path)
    file = memory.typed()
    file.write_text("".join(f"\n# time\n+message {i}\n" for i in range(100)))
    kept = memory.typed().read_text()
    assert len(kept) < 600
    assert kept.startswith("\n#")
    assert kept.endswith("+message 99\n")


@pytest.mark.parametrize("end", ["", "\n"])
async def test_lines_of_a_pipe(end):
    """Line by line, the last one without its end, too; a line without end is cut."""
    reading, writing = os.pipe()
    lines = Lines(reading)
    os.write(writing, f"one\ntwo é\n\nlast{end}".encode())
    os.close(writing)
    assert [await lines.next() for _ in range(5)] == ["one", "two é", "", "last", None]
    os.close(reading)
    lines._take(b"x" * (MAX_LINE + 1))
    assert len(lines._lines[0]) == MAX_LINE + 1


async def test_lines_of_a_file(tmp_path):
    """A file cannot be waited for; it is read."""
    (tmp_path / "file").write_text("one\ntwo")
    with (tmp_path / "file").open() as file:
        lines = Lines(file.fileno())
        assert [await lines.next() for _ in range(3)] == ["one", "two", None]


def test_figures():
    """In a line and in full; nothing is made up where nothing is known."""
    response = {
        "id": "resp_1", "status": "completed", "model": "m", "output": [],
        "usage": {
            "input_tokens": 10, "input_tokens_details": {"cached_tokens": 8}, "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 2}, "cost": {"amount": "0.01", "currency": "USD"},
        },
        "timing": {"queued_ms": 1, "ttft_ms": 20, "prefill_ms": 15, "tokens_per_second": 31.5},
        "context": {"sent": 10, "window": 100, "dropped": ["item_1"]},
    }  # fmt: skip
    full = result_of(response)
    assert in_short(full) == "5 tokens · 8 of 10 prompt tokens from the cache · 32 tokens/s · 0.01 USD"
    assert "10 of 100 tokens sent, 1 items dropped" in in_full(full)
    bare = result_of({**response, "usage": None, "timing": None, "context": None})
    assert in_short(bare) == ""
    assert "tokens" not in in_full(bare)


async def test_a_call_is_shown_with_its_arguments():
    """On a terminal in its place between the texts; in a pipe beside the answer. Control characters stay letters."""
    screen, out = painted()
    screen.begin()
    screen.write("Before it.")
    screen.call("get_weather", '{"city": "Paris\x1b[31m"}')
    screen.write("Behind it.")
    screen.end("7 tokens")
    screen.call("add", "{}")  # in a history
    shown = out.getvalue()
    places = [shown.rindex(text) for text in ("Before", "get_weather", '{"city": "Paris', "Behind", "add")]
    assert places == sorted(places) and "Paris\x1b[31m" not in shown
    out, notes = io.StringIO(), io.StringIO()
    plain = Plain(out, notes)
    plain.begin()
    plain.call("get_weather", '{"city": "Paris"}')
    plain.write("Sunny.")
    plain.end()
    assert out.getvalue() == "Sunny.\n" and notes.getvalue() == '(calls get_weather {"city": "Paris"})\n'


def test_calls_reach_the_screen():
    """Live and in the history: the talk hands on what a client sees of a call."""
    seen = []

    class Seen(Plain):
        def status(self, text):
            seen.append(text)

        def call(self, name, arguments):
            seen.append((name, arguments))

    call = {"id": "fc_1", "type": "function_call", "call_id": "c", "name": "add", "status": "completed"}
    talk = Talk(None, Seen(), None, "", None)
    for kind, arguments in (("added", ""), ("done", '{"a": 1}')):
        event = {
            "type": f"response.output_item.{kind}",
            "sequence_number": 3,
            "item": {**call, "arguments": arguments},
        }
        talk._show(event_of(event))
    talk._tell(Item("fc_1", "function_call", "", "", {**call, "arguments": "{}"}))
    assert seen == ["calling add", ("add", '{"a": 1}'), ("add", "{}")]
