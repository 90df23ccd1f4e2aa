"""Stop strings: what is released is final, and the stop string never shows."""

from hypothesis import given
from hypothesis import strategies as st

from chatserver.domain.stops import StopFilter


def run(pieces, stops):
    stream = StopFilter(stops)
    released = []
    for token, piece in enumerate(pieces):
        released.extend(stream.feed([(token, piece)]))
    return released + stream.flush(), stream.matched


def test_without_stops_everything_passes_at_once():
    """No stop strings: nothing is held back."""
    assert StopFilter(()).feed([(1, "a")]) == [(1, "a")]


def test_a_possible_beginning_is_held_back():
    """Text that may begin a stop string waits with its token."""
    stream = StopFilter(("END",))
    assert stream.feed([(1, "so E")]) == []
    assert stream.feed([(2, "x")]) == [(1, "so E"), (2, "x")]


def test_a_stop_over_several_tokens_is_trimmed():
    """The stop string is cut from the text, its tokens stay."""
    released, matched = run(["one ", "E", "N", "D more"], ("END",))
    assert released == [(0, "one "), (1, ""), (2, ""), (3, "")]
    assert matched == "END"


@given(
    st.lists(st.text("abE", max_size=3), max_size=30),
    st.lists(st.text("abE", min_size=1, max_size=3), max_size=3),
)
def test_the_text_ends_before_the_first_stop_string(pieces, stops):
    """Over any cutting: released text = the text up to the first stop string; every token is released once."""
    released, matched = run(pieces, tuple(stops))
    whole = "".join(pieces)
    ends = [whole.find(stop) for stop in stops if stop in whole]
    text = "".join(piece for _, piece in released)
    assert [token for token, _ in released] == list(range(len(pieces)))
    if matched is None:
        assert text == whole and not ends
    else:
        # the text comes piece by piece: it ends at the first stop string of the first piece that completes one
        assert whole.startswith(text) and whole[len(text) :].startswith(matched)
        assert not any(stop in text for stop in stops)
