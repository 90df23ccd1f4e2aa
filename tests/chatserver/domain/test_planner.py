"""The planner: never over the limit, never without the head, never a moved cut without need."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatserver.domain.item import Role
from chatserver.domain.planner import DoesNotFit, Segment, Window, expected_message, plan, plan_next
from chatserver.domain.response import Truncation

CUTTING = (Truncation.AUTO, Truncation.RETENTION_RATIO)


def dialogue(*turns: tuple[int, int], system: int = 0) -> list[Segment]:
    segments = [Segment("s", Role.SYSTEM, system)] if system else []
    for index, (user, answer) in enumerate(turns):
        segments.append(Segment(f"u{index}", Role.USER, user))
        if answer:
            segments.append(Segment(f"a{index}", Role.ASSISTANT, answer))
    return segments


def arrange(segments, *, context=1000, reserve=100, policy=Truncation.AUTO, ratio=0.5, cut=None, fixed=10):
    window = Window(context, 10_000_000, reserve)
    return plan(segments, fixed=fixed, window=window, policy=policy, retention_ratio=ratio, cut=cut)


def test_all_is_kept_while_it_fits():
    """Nothing is cut before the limit."""
    chosen = arrange(dialogue((20, 30), (20, 0)))
    assert (chosen.start, chosen.cut, chosen.sent) == (0, None, 80)


def test_disabled_refuses_with_the_counts():
    """Without a policy a prompt over the limit is refused, and the counts are told."""
    with pytest.raises(DoesNotFit) as refusal:
        arrange(dialogue((500, 500), (20, 0)), policy=Truncation.DISABLED)
    assert (refusal.value.needed, refusal.value.limit) == (1030, 894)


def test_a_cut_keeps_whole_turns_under_the_ratio():
    """A cut drops whole turns from the front until the ratio is met."""
    turns = [(50, 50)] * 9 + [(50, 0)]
    chosen = arrange(dialogue(*turns), ratio=0.5)
    assert chosen.cut == "u6"
    assert chosen.sent <= 10 + int((894 - 10) * 0.5)


def test_instructions_in_the_conversation_are_never_dropped():
    """Leading system items are pinned: they stay in front of the cut."""
    chosen = arrange(dialogue(*[(50, 50)] * 9, (50, 0), system=40))
    assert chosen.pinned == 1
    assert chosen.start > 1


def test_a_stored_cut_does_not_move_until_the_limit():
    """From a stored cut on, prompts only grow until they no longer fit."""
    segments = dialogue(*[(50, 50)] * 12, (50, 0))
    first = arrange(segments[:19], ratio=0.5)
    again = arrange(segments[:21], ratio=0.5, cut=first.cut)
    assert again.cut == first.cut
    assert again.start == first.start


def test_one_giant_message_is_refused_as_such():
    """A newest message that alone is over the limit is refused, and the refusal says that it alone is."""
    with pytest.raises(DoesNotFit) as refusal:
        arrange(dialogue((10, 10), (5000, 0)))
    assert refusal.value.single


@st.composite
def dialogues(draw):
    turns = draw(st.lists(st.tuples(st.integers(1, 80), st.integers(1, 80)), max_size=30))
    return dialogue(*turns, (draw(st.integers(1, 80)), 0), system=draw(st.sampled_from([0, 25])))


@given(dialogues(), st.sampled_from(CUTTING), st.floats(0.1, 0.95))
def test_every_plan_fits_keeps_the_head_and_accounts_for_all(segments, policy, ratio):
    """Whatever the lengths: within the limit, head kept, newest message kept, kept + dropped = all."""
    chosen = arrange(segments, policy=policy, ratio=ratio)
    kept = [*segments[: chosen.pinned], *segments[chosen.start :]]
    assert chosen.sent == 10 + sum(segment.length for segment in kept) <= 894
    assert segments[-1] in kept
    assert all(s in kept for s in segments if s.role is Role.SYSTEM)
    if chosen.cut is not None:
        assert segments[chosen.start].role is Role.USER


@given(
    st.lists(st.tuples(st.integers(1, 80), st.integers(1, 80)), min_size=5, max_size=60), st.floats(0.3, 0.9)
)
def test_over_a_whole_conversation_cuts_only_move_forward_and_only_when_full(turns, ratio):
    """A cut moves only when the prompt no longer fits from the stored one, and never backwards."""
    cut, start = None, 0
    for count in range(1, len(turns) + 1):
        segments = dialogue(*turns[: count - 1], (turns[count - 1][0], 0))
        unmoved = 10 + sum(segment.length for segment in segments[start:])
        chosen = arrange(segments, ratio=ratio, cut=cut)
        assert chosen.start >= start
        if unmoved <= 894:
            assert chosen.start == start
        cut, start = chosen.cut, chosen.start


def arrange_next(segments, *, context=1000, reserve=100, ratio=0.5, cut=None, policy=Truncation.AUTO):
    window = Window(context, 10_000_000, reserve)
    return plan_next(segments, fixed=10, window=window, policy=policy, retention_ratio=ratio, cut=cut)


def test_the_cut_moves_at_the_end_of_the_turn_before_the_one_that_needs_it():
    """As soon as one more message like the last ones would not fit, and not before."""
    full = dialogue(*[(50, 50)] * 8)
    assert arrange_next(full).cut is None  # 810 + 50 ≤ 894
    assert arrange_next(dialogue(*[(50, 50)] * 9), ratio=0.5).cut == "u5"


@given(
    st.lists(st.tuples(st.integers(1, 80), st.integers(1, 80)), min_size=5, max_size=60), st.floats(0.3, 0.9)
)
def test_a_message_as_expected_never_moves_the_cut_again(turns, ratio):
    """What was chosen at the end of a turn is what the next one begins with, if its message is no surprise."""
    cut = None
    for count in range(1, len(turns) + 1):
        done = dialogue(*turns[:count])
        try:
            chosen = arrange_next(done, ratio=ratio, cut=cut)
        except DoesNotFit:
            return
        expected = expected_message(done, 894 - 10)
        asked = [*done, Segment("next", Role.USER, max(1, expected))]
        assert arrange(asked, ratio=ratio, cut=chosen.cut).start == chosen.start
        cut = chosen.cut


@given(dialogues(), st.floats(0.1, 0.95))
def test_between_turns_a_cut_moves_only_when_the_next_message_may_not_fit(segments, ratio):
    """Below the high-water mark (the limit less the expected message) nothing moves."""
    done = [*segments, Segment("answer", Role.ASSISTANT, 40)]
    length = 10 + sum(segment.length for segment in done)
    try:
        chosen = arrange_next(done, ratio=ratio)
    except DoesNotFit:
        return
    pinned = sum(segment.role is Role.SYSTEM for segment in done)
    fixed = 10 + sum(segment.length for segment in done[:pinned])
    if length + expected_message(done, 894 - 10) <= 894:
        assert chosen.start == pinned
    assert chosen.start < len(done)
    assert fixed <= chosen.sent <= 894


def test_one_pasted_file_does_not_empty_the_window():
    """The expected message is bounded by a quarter of the room."""
    assert expected_message(dialogue((5, 5), (3000, 5)), 4000) == 1000
    assert expected_message([], 4000) == 0


def test_ten_thousand_items_are_planned_in_five_milliseconds():
    """The longest branch there can be."""
    segments = dialogue(*[(20, 30)] * 4999, (20, 0))
    times = []
    for _ in range(5):
        started = time.perf_counter()
        arrange(segments, context=8192)
        times.append(time.perf_counter() - started)
    assert min(times) <= 0.005
