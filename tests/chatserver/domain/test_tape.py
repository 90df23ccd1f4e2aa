"""The tape and the cursor: every token once and in order, wherever records are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatserver.domain.logprob import Logprob
from chatserver.domain.tape import Accepted, Cursor, Delta, Gap, ItemOpened, Queued, Record, Started, merge


def tape(pieces: list[str], sizes: list[int]) -> list[Record]:
    """A tape of these pieces, cut into deltas of these sizes."""
    records = [
        Record(0, Accepted()),
        Record(1, Queued()),
        Record(2, Started(5)),
        Record(4, ItemOpened("msg")),
    ]
    position, last = 0, 4
    for size in [*sizes, len(pieces)]:
        part = pieces[position : position + size]
        if part:
            position, last = position + len(part), last + len(part)
            records.append(Record(last, Delta(tuple(part), tuple(range(position - len(part), position)))))
    return records


def text(records) -> str:
    return "".join(r.body.text for r in records if isinstance(r.body, Delta))


pieces_and_cuts = st.tuples(
    st.lists(st.text(max_size=3), min_size=1, max_size=40), st.lists(st.integers(1, 6), max_size=20)
)


@given(pieces_and_cuts, st.lists(st.integers(1, 6), max_size=20), st.integers(-1, 50))
def test_a_reader_gets_exactly_the_rest_however_the_tape_was_cut(content, other_cuts, after):
    """From any position, over any cutting, the new text is the pieces after that position."""
    pieces, cuts = content
    after = min(after, 4 + len(pieces))
    cursor = Cursor(after)
    got = [taken for record in tape(pieces, other_cuts or cuts) if (taken := cursor.take(record))]
    assert text(got) == "".join(pieces[max(0, after - 4) :])
    assert cursor.after == max(after, 4 + len(pieces))


@given(pieces_and_cuts, st.data())
def test_duplicates_change_nothing(content, data):
    """Any repetition of earlier records is dropped."""
    records = tape(*content)
    cursor, got = Cursor(), []
    for index, record in enumerate(records):
        for repeated in (
            data.draw(st.lists(st.sampled_from(records[: index + 1]), max_size=3)) if index else []
        ):
            taken = cursor.take(repeated) if repeated.last <= cursor.after else None
            assert taken is None
        got.append(cursor.take(record))
    assert text(got) == "".join(content[0])


def test_a_gap_is_refused():
    """A record that does not follow is an error that says where to read on."""
    cursor = Cursor(4)
    with pytest.raises(Gap) as gap:
        cursor.take(Record(9, Delta(("a",), (1,))))
    assert gap.value.after == 4


@given(pieces_and_cuts)
def test_merging_adjacent_deltas_is_lossless(content):
    """All deltas of a tape merge into one with all pieces and ids."""
    deltas = [record for record in tape(*content) if isinstance(record.body, Delta)]
    merged = deltas[0]
    for record in deltas[1:]:
        merged = merge(merged, record)
    assert merged.body.pieces == tuple(content[0])
    assert merged.first == deltas[0].first


def test_only_neighbours_merge():
    """Structural records and deltas with a gap between them stay apart."""
    first = Record(5, Delta(("a",), (1,)))
    assert merge(first, Record(7, Delta(("b",), (2,)))) is None
    assert merge(Record(2, Started(1)), first) is None


def test_a_delta_needs_a_piece_for_every_id():
    """A delta with unequal pieces and ids, or none, cannot be made."""
    with pytest.raises(ValueError, match="as many pieces as ids"):
        Delta(("a",), ())
    with pytest.raises(ValueError, match="as many pieces as ids"):
        Delta((), ())


def test_log_probabilities_stay_with_their_pieces():
    """Merged and trimmed wherever, a piece has its own; those with and those without them are not mixed."""
    likely = [(Logprob(piece, -float(i)),) for i, piece in enumerate("abcd")]
    records = [Record(5 + i, Delta((p,), (i,), logprobs=(likely[i],))) for i, p in enumerate("abcd")]
    whole = records[0]
    for record in records[1:]:
        whole = merge(whole, record)
    assert whole.body == Delta(tuple("abcd"), (0, 1, 2, 3), logprobs=tuple(likely))
    assert Cursor(6).take(whole).body == Delta(("c", "d"), (2, 3), logprobs=tuple(likely[2:]))
    assert merge(whole, Record(9, Delta(("e",), (4,)))) is None
    with pytest.raises(ValueError, match="log-probabilities"):
        Delta(("a", "b"), (1, 2), logprobs=((),))
