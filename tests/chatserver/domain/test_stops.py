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


def test_what_comes_behind_a_stop_is_dropped():
    """However many tokens one step brings, the answer is what ends with the stop string."""
    stream = StopFilter(("END",))
    assert stream.feed([(1, "on"), (2, "END"), (3, " and"), (4, " on")]) == [(1, "on"), (2, "")]
    assert stream.feed([(5, "more")]) == []
    assert stream.flush() == []


def test_a_stop_string_over_the_seam_counts():
    """It began in what is out already: the rest of it is trimmed. One that is out as a whole does not count."""
    stream = StopFilter(("END",), "what was stopped ended in E")
    assert stream.feed([(1, "N")]) == []
    assert stream.feed([(2, "D.")]) == [(1, ""), (2, "")]
    assert stream.matched == "END"
    stream = StopFilter(("END",), "END")
    assert stream.feed([(1, "ND")]) == [(1, "ND")] and stream.matched is None
    stream = StopFilter(("END",), "so E")
    assert stream.feed([(1, "x"), (2, "N"), (3, "D")]) == [(1, "x"), (2, "N"), (3, "D")]


@given(
    st.text("abE", max_size=8),
    st.lists(st.text("abE", max_size=3), max_size=12),
    st.lists(st.text("abE", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_any_seam(earlier, pieces, stops):
    """A match ends behind the seam and at the first piece that completes one; what is released leaves it out."""
    stream, released, out = StopFilter(tuple(stops), earlier), [], earlier
    for token, piece in enumerate(pieces):
        released += stream.feed([(token, piece)])
        out += piece
        ends = [out.find(stop, max(0, len(earlier) - len(stop) + 1)) for stop in stops]
        assert (stream.matched is not None) == any(end >= 0 for end in ends)
        if stream.matched is not None:
            text = "".join(piece for _, piece in released)
            assert earlier + text == out[: max(len(earlier), min(end for end in ends if end >= 0))]
            return
    assert "".join(piece for _, piece in released + stream.flush()) == "".join(pieces)


@given(
    st.lists(st.text("abE", max_size=3), max_size=30),
    st.lists(st.text("abE", min_size=1, max_size=3), max_size=3),
)
def test_the_text_ends_before_the_first_stop_string(pieces, stops):
    """Over any cutting: released text = the text up to the first stop string; its tokens are released once each."""
    released, matched = run(pieces, tuple(stops))
    whole = "".join(pieces)
    ends = [whole.find(stop) for stop in stops if stop in whole]
    text = "".join(piece for _, piece in released)
    assert [token for token, _ in released] == list(range(len(released)))
    if matched is None:
        assert text == whole and not ends and len(released) == len(pieces)
    else:
        assert matched in "".join(pieces[: len(released)])
        assert matched not in "".join(pieces[: len(released) - 1])
        # the text comes piece by piece: it ends at the first stop string of the first piece that completes one
        assert whole.startswith(text) and whole[len(text) :].startswith(matched)
        assert not any(stop in text for stop in stops)
