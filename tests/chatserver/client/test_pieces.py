"""The client's pure parts, and what it imports."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatserver.client import Options, ProtocolError, Unreachable
from chatserver.client.calls import Again, Patience
from chatserver.client.events import Interrupted, Other, ReasoningDelta, Started, ToolCallDelta, event_of
from chatserver.client.options import FIRST_WAIT, LONGEST_WAIT, pause_before
from chatserver.client.results import result_of
from chatserver.client.sse import Data, Decoder, Place

STREAM = (
    b': ping\nevent: a\nid: 1\ndata: {"t": "\xe2\x80\xa8x"}\n\n: queue position 3\n'
    b"id: 2\r\ndata:two\r\ndata: lines\r\n\r\n: ping\n"
)
EVENTS = [Data(b'{"t": "\xe2\x80\xa8x"}'), Place(3), Data(b"two\nlines")]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_events_are_the_same_wherever_chunks_end(cuts):
    """Any division of the bytes; an unfinished event at the end is never handed out."""
    decoder, found, places = Decoder(), [], [0, *sorted(cuts), len(STREAM)]
    for start, end in itertools.pairwise(places):
        found += decoder.feed(STREAM[start:end])
    assert found == EVENTS
    assert decoder.feed(b"data: cut off") == []


def test_an_endless_event_is_refused(monkeypatch):
    """Neither one long line nor many short ones grow without bound."""
    monkeypatch.setattr("chatserver.client.sse.MAX_EVENT", 1000)
    for chunk in (b"data: " + b"x" * 100, b"data: " + b"x" * 100 + b"\n"):
        decoder = Decoder()
        with pytest.raises(ProtocolError):
            for _ in range(20):
                decoder.feed(chunk)


@given(st.integers(0, 100), st.floats(0, 1, exclude_max=True))
def test_pauses_have_full_jitter(attempt, draw):
    """From 0 up to a bound that doubles and has a bound itself."""
    pause = pause_before(attempt, lambda: draw)
    bound = min(LONGEST_WAIT, FIRST_WAIT * 2**attempt)
    assert pause == pytest.approx(draw * bound)


def test_patience_keeps_to_what_the_server_asks(monkeypatch):
    """At least retry-after; at its end, or if that lies behind its end, it gives up; progress begins anew."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    patience = Patience(10)
    assert 3 <= patience.wait(Again("busy", at_least=3)) <= 3 + FIRST_WAIT
    now = 9.9
    with pytest.raises(Unreachable, match="gave up after 10 s: busy"):
        patience.wait(Again("busy", at_least=3))
    patience.progress()
    assert patience.wait(Again("busy", at_least=3)) <= 3 + FIRST_WAIT


def test_options_are_checked():
    """By name."""
    for wrong in ({"concurrency": 0}, {"patience": 0}, {"silence": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Options(**wrong)


def test_kinds_of_events():
    """Those that the web role's tests do not bring; unknown ones are kept, broken ones are told."""
    place = {"sequence_number": 7}
    assert event_of({**place, "type": "response.reasoning_text.delta", "delta": "hm"}) == ReasoningDelta(
        7, "hm"
    )
    call = {**place, "type": "response.function_call_arguments.delta", "item_id": "fc_1", "delta": "{"}
    assert event_of(call) == ToolCallDelta(7, "fc_1", "{")
    again = {**place, "type": "response.in_progress", "recovery": {"state": "resumed", "claim": 2}}
    assert event_of(again) == Started(7, 2)
    assert event_of({**again, "recovery": {"state": "interrupted"}}) == Interrupted(7)
    assert event_of({**place, "type": "response.new"}) == Other(
        7, "response.new", {**place, "type": "response.new"}
    )
    for broken in (
        {},
        {"type": "response.completed", "sequence_number": 1},
        {"type": "x", "sequence_number": "y"},
    ):
        with pytest.raises(ProtocolError):
            event_of(broken)


def test_it_needs_httpx_and_nothing_else():
    """With every other package made unimportable, the server's own modules too, the client is imported and used."""
    program = """
import sys
ALLOWED = {"httpx", "httpcore", "h11", "anyio", "certifi", "idna", "sniffio", "typing_extensions"}
class Only:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        ours = name == "chatserver" or name.startswith("chatserver.client")
        if top in sys.stdlib_module_names or top in ALLOWED or ours:
            return None
        raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Only())
from chatserver.client import connect
connect("http://127.0.0.1:1")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_result_is_printed_as_its_text():
    """`print(await client.ask(…))`; and in a debugger it is no wall."""
    message = {"type": "message", "content": [{"type": "output_text", "text": "A tide is …"}]}
    whole = {
        "id": "resp_1",
        "status": "completed",
        "model": "m",
        "output": [message],
        "context": {"kept": ["x"] * 900},
    }
    result = result_of(whole)
    assert str(result) == "A tide is …"
    assert result.raw is whole and len(repr(result)) < 300
