"""What children print, as bounded printable lines."""

import os

from hypothesis import given
from hypothesis import strategies as st

from chatserver.service.supervision.output import LINE_LIMIT, Output


async def printed(*writes: bytes) -> list[str]:
    """Return the lines of a process that writes so."""
    output = Output()
    with output.handed_over() as end:
        writer = os.dup(end)
    for text in writes:
        os.write(writer, text)
    os.close(writer)
    return [line async for line in output.lines()]


async def test_lines_are_whole_wherever_writes_are_cut():
    """A pipe knows no lines; a last one without its end counts too."""
    assert await printed(b"one\ntw", b"o\nthree") == ["one", "two", "three"]


async def test_progress_bars_show_their_last_drawing():
    """Redrawn lines are one line."""
    assert await printed(b" 10 %\r 50 %\r100 %\r\ndone\r\n") == ["100 %", "done"]


async def test_escape_codes_do_not_reach_the_terminal():
    """Colours and cursor movements of a child would spoil the live line, or worse."""
    assert await printed(b"\x1b[31mred\x1b[0m \x07bell\x1b]0;title\n") == ["red bell]0;title"]


async def test_endless_line_is_cut():
    """A child that never ends its line costs bounded memory."""
    lines = await printed(*([b"x" * 10_000] * 6), b"\nnext\n")
    assert lines == ["x" * LINE_LIMIT + "…", "next"]


@given(st.lists(st.binary(max_size=200), max_size=10))
async def test_any_bytes_become_lines(writes):
    """Nothing that a child prints can raise; no line has a control character other than a tab."""
    for line in await printed(*writes):
        assert all(character == "\t" or character >= " " for character in line)
