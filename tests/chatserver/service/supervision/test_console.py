"""What the supervisor shows, on a terminal and elsewhere."""

import io

from chatserver.service.supervision.console import Console


def plain() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(out, live=False), out


def live() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(out, live=True), out


def test_plain_output_has_a_line_for_each_change():
    """Off a terminal a status is printed when it changes, a percentage every ten points, no escape codes."""
    console, out = plain()
    for percent in range(0, 101, 5):
        console.status("engine", f"preparing {percent} %")
    console.status("engine", "loading")
    console.status("engine", "loading")
    console.tick()
    console.settle("engine")
    console.headline("Chat at http://127.0.0.1:8000/")
    lines = out.getvalue().splitlines()
    assert lines == [
        *(f"engine: preparing {percent} %" for percent in range(0, 101, 10)),
        "engine: loading",
        "Chat at http://127.0.0.1:8000/",
    ]


def test_status_of_a_second_life_is_printed_again():
    """A role that starts again says so again."""
    console, out = plain()
    for _ in range(2):
        console.status("engine", "loading")
        console.settle("engine")
    assert out.getvalue() == "engine: loading\n" * 2


def test_terminal_has_one_live_line_under_the_lasting_ones():
    """On a terminal lines push the status down; the last thing drawn is the status, with a bar for a percentage."""
    console, out = live()
    console.status("engine", "preparing 50 %")
    console.child("web", "WARNING: hello")
    *_, line, status = out.getvalue().split("\r\x1b[2K")
    assert line == "web    | WARNING: hello\n"
    assert status == "⠋ engine: preparing [██████████··········] 50 %"
    console.tick()
    assert out.getvalue().endswith("\r\x1b[2K⠙ engine: preparing [██████████··········] 50 %")
    console.close()
    assert out.getvalue().endswith("\r\x1b[2K")


def test_live_line_is_cut_to_the_terminal(monkeypatch):
    """A line that wrapped could not be redrawn in place."""
    monkeypatch.setenv("COLUMNS", "40")
    console, out = live()
    console.status("engine", "x" * 100)
    assert len(out.getvalue().split("\r\x1b[2K")[-1]) == 39


def test_output_that_nobody_reads_is_given_up():
    """A closed pipe must not end the server: `make serve | head` goes on."""

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    console = Console(Closed(), live=True)
    console.line("to nobody")
    console.status("engine", "loading")
