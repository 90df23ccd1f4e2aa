"""The planner: never over the limit, never without the head, never a moved cut without need."""

import contextlib
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatserver.domain.item import Role
from chatserver.domain.planner import (
    MIN_TRIMMED,
    DoesNotFit,
    Policy,
    Segment,
    Window,
    expected_message,
    plan,
    plan_next,
)
from chatserver.domain.response import Truncation

CUTTING = (Truncation.AUTO, Truncation.RETENTION_RATIO)


def dialogue(*turns: tuple[int, int], system: int = 0) -> list[Segment]:
    segments = [Segment("s", Role.SYSTEM, system)] if system else []
    for index, (user, answer) in enumerate(turns):
        segments.append(Segment(f"u{index}", Role.USER, user))
        if answer:
            segments.append(Segment(f"a{index}", Role.ASSISTANT, answer))
    return segments


def arrange(
    segments,
    *,
    context=1000,
    policy=Truncation.AUTO,
    ratio=0.5,
    cut=None,
    trim=None,
    post=None,
    inside=False,
    fixed=10,
    choose=plan,
):
    chosen = Policy(policy, ratio, post, inside)
    window = Window(context, 10_000_000, 100)
    return choose(segments, fixed=fixed, window=window, policy=chosen, cut=cut, trim=trim)


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


def arrange_next(segments, **options):
    return arrange(segments, choose=plan_next, **options)


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


def test_a_limit_behind_the_instructions_holds_the_history_down():
    """OpenAI's token_limits: the cut comes at that many tokens behind the instructions; the ratio is of them."""
    segments = dialogue(*[(50, 50)] * 4, (50, 0), system=200)
    assert arrange(segments, post=450).cut is None
    chosen = arrange(segments, post=449)
    assert chosen.cut == "u3"
    assert chosen.sent == 10 + 200 + 150 <= 10 + 200 + int(449 * 0.5)
    assert arrange(dialogue(*[(50, 50)] * 9, (50, 0)), post=100_000).sent <= 894


def test_a_giant_message_loses_its_middle_if_the_policy_says_so():
    """The newest turn alone is sent, cut inside its longest message down to the ratio; both ends stay."""
    chosen = arrange(dialogue((10, 10), (5000, 0)), inside=True)
    assert chosen.cut == "u1"
    assert chosen.sent == 10 + int((894 - 10) * 0.5)
    kept = 5000 - chosen.trim.count
    assert chosen.sent == 10 + kept
    assert (chosen.trim.item_id, chosen.trim.first) == ("u1", kept // 2)


def test_a_trim_stays_as_long_as_its_message_is_sent():
    """The next prompt begins with the trimmed one; once the message is dropped, so is the trim."""
    first = arrange(dialogue((10, 10), (5000, 0)), inside=True)
    segments = dialogue((10, 10), (5000, 40), (60, 0))
    after = arrange(segments, cut=first.cut, trim=first.trim)
    assert (after.start, after.trim, after.sent) == (first.start, first.trim, first.sent + 100)
    later = arrange(dialogue((10, 10), (5000, 40), (400, 40), (60, 0)), cut=first.cut, trim=first.trim)
    assert (later.cut, later.trim) == ("u3", None)
    with pytest.raises(DoesNotFit):
        arrange(segments, policy=Truncation.DISABLED, trim=first.trim)


def test_what_would_be_too_little_is_refused():
    """Two giants in one turn: cutting one of them inside does not help."""
    segments = [Segment("u0", Role.USER, 5000), Segment("u1", Role.USER, 5000)]
    with pytest.raises(DoesNotFit) as refusal:
        arrange(segments, inside=True)
    assert (refusal.value.needed, refusal.value.limit, refusal.value.single) == (10_010, 894, True)


@given(
    st.lists(
        st.tuples(st.integers(1, 2000), st.integers(1, 80), st.none() | st.integers(1, 128)),
        min_size=1,
        max_size=40,
    ),
    st.sampled_from(CUTTING),
    st.floats(0.1, 1.0),
    st.none() | st.integers(1, 2000),
    st.booleans(),
    st.sampled_from([0, 25]),
)
def test_a_conversation_of_any_lengths(turns, policy, ratio, post, inside, system):
    """Turn by turn: within window and limit, head kept, kept + dropped = all, no cut moves before it must.

    With compaction: after a turn whose cut moved, the head may grow by a summary, or have another one than before.
    """
    cut = trim = None
    start, done, fixed = 0, [], 10
    for user, answer, summary in turns:
        options = {"policy": policy, "ratio": ratio, "post": post, "inside": inside, "fixed": fixed}
        segments = dialogue(*done, (user, 0), system=system)
        pinned = bool(system)
        limit = 894 if post is None else min(894, fixed + system + post)
        lengths = [s.length - (trim.count if trim and s.item_id == trim.item_id else 0) for s in segments]
        unmoved = fixed + system + sum(lengths[max(start, pinned) :])
        try:
            chosen = arrange(segments, cut=cut, trim=trim, **options)
        except DoesNotFit as error:
            assert user + fixed + system > limit, "only a message that is too long by itself is refused"
            assert error.single and error.needed == user + fixed + system and error.limit == limit
            continue  # a refused turn takes its input back
        kept = [*segments[: chosen.pinned], *segments[chosen.start :]]
        dropped = segments[chosen.pinned : chosen.start]
        assert [*kept[: chosen.pinned], *dropped, *kept[chosen.pinned :]] == segments
        assert chosen.pinned == pinned and segments[-1] in kept
        removed = chosen.trim.count if chosen.trim else 0
        assert chosen.sent == fixed + sum(s.length for s in kept) - removed <= limit
        if chosen.trim:
            assert inside and chosen.trim.item_id in {s.item_id for s in kept}
            (whole,) = [s.length for s in kept if s.item_id == chosen.trim.item_id]
            assert whole - removed >= MIN_TRIMMED and 0 < chosen.trim.first < whole - removed
        assert chosen.start >= start
        if unmoved <= limit:
            assert (chosen.start, chosen.trim) == (max(start, pinned), trim)
        done.append((user, answer))
        cut, trim, start = chosen.cut, chosen.trim, chosen.start
        for head in (fixed, fixed if summary is None or start <= pinned else 10 + summary):
            options["fixed"] = fixed = head
            after = _next_of(dialogue(*done, system=system), cut, trim, **options)
            if after is not None:
                assert after.start >= start and after.trim in (None, trim)
                cut, trim, start = after.cut, after.trim, after.start


def _next_of(segments, cut, trim, **options):
    """The plan at the end of a turn. What it begins with is kept while it and the expected message fit."""
    pinned = sum(segment.role is Role.SYSTEM for segment in segments)
    head = options["fixed"] + sum(segment.length for segment in segments[:pinned])
    limit = 894 if options["post"] is None else min(894, head + options["post"])
    before = [segment.item_id for segment in segments].index(cut) if cut else pinned
    left_out = trim.count if trim and trim.item_id in {s.item_id for s in segments[before:]} else 0
    length = head + sum(segment.length for segment in segments[before:]) - left_out
    # counted without what is pinned, as `plan_next` does: it errs to the long side
    bound = 894 if options["post"] is None else min(894, options["fixed"] + options["post"])
    expected = expected_message(segments, bound - options["fixed"])
    try:
        after = arrange_next(segments, cut=cut, trim=trim, **options)
    except DoesNotFit:
        return None
    if length + expected <= limit:
        assert after.start == before
    return after


class Counted(Sequence):
    """Counts how often its segments are looked at."""

    def __init__(self, segments) -> None:
        self.segments, self.looks = segments, 0

    def __len__(self) -> int:
        return len(self.segments)

    def __getitem__(self, index):
        found = self.segments[index]
        self.looks += len(found) if isinstance(index, slice) else 1
        return found


@pytest.mark.parametrize("options", [{}, {"context": 40}, {"cut": "u4000"}, {"inside": True, "post": 30}])
def test_ten_thousand_items_are_looked_at_a_few_times_each(options):
    """The longest branch there can be takes linear time, whatever is decided."""
    segments = Counted(dialogue(*[(20, 30)] * 4999, (20, 0), system=1))
    with contextlib.suppress(DoesNotFit):
        arrange(segments, **{"context": 8192, **options})
    assert segments.looks <= 8 * len(segments)


def test_ten_thousand_items_are_planned_in_five_milliseconds():
    """Of processor time of this thread, the best of many: what other processes do does not count."""
    segments = dialogue(*[(20, 30)] * 4999, (20, 0))
    times = []
    for _ in range(20):
        started = time.thread_time()
        arrange(segments, context=8192)
        times.append(time.thread_time() - started)
        if times[-1] <= 0.005:
            return
    # a machine so slow that a plain loop over as many items takes long, too, is not the planner's fault
    started = time.thread_time()
    for segment in segments:
        assert segment.length
    assert min(times) <= 20 * (time.thread_time() - started)
