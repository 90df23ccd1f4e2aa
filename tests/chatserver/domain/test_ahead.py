"""Cuts that come soon: found in time, the same from turn to turn, and taken when the cut moves."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatserver.domain.ahead import LEAD, cut_ahead
from chatserver.domain.planner import Policy, Window, plan_next
from chatserver.domain.response import Truncation
from tests.chatserver.domain.test_planner import Counted, dialogue

WINDOW = Window(1000, 10_000_000, 100)


def rules(ratio=0.7, kind=Truncation.AUTO, post=None):
    return {"fixed": 10, "window": WINDOW, "policy": Policy(kind, ratio, post)}


def ends(turns, **more):
    """What is planned as each turn ends: (the next turn's plan, the cut ahead)."""
    cut = ahead = None
    found = []
    for count in range(1, len(turns) + 1):
        segments = dialogue(*turns[:count], system=20)
        chosen = plan_next(segments, **rules(**more), cut=cut, ahead=ahead)
        soon = cut_ahead(segments, chosen, **rules(**more), ahead=ahead)
        cut, ahead = chosen.cut, soon.plan.cut if soon else None
        found.append((chosen, soon))
    return found


def test_a_cut_is_told_of_some_turns_before_it_moves():
    """Not earlier than LEAD turns, with the right number of turns to go, and then the cut moves to just there."""
    found = ends([(30, 30)] * 30)
    moves = [n for n in range(1, 30) if found[n][0].cut != found[n - 1][0].cut]
    assert len(moves) >= 3
    assert all(soon is None for _, soon in found[: moves[0] - LEAD])
    for turns in range(1, LEAD + 1):
        soon = found[moves[0] - turns][1]
        assert (soon.turns, soon.plan.cut) == (turns, found[moves[0]][0].cut)
        assert soon.plan.start > found[moves[0] - turns][0].start


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=20, max_size=60),
    st.sampled_from([0.5, 0.7, 0.8]),
    st.sampled_from([None, 600]),
)
def test_looking_ahead_neither_keeps_too_much_nor_cuts_too_early(turns, ratio, post):
    """A cut moves when it would have moved anyway, forwards, and keeps at most what the policy allows."""
    room = 864 if post is None else min(864, post)
    for (before, told), (after, _) in pairwise(ends(turns, ratio=ratio, post=post)):
        assert after.start >= before.start
        if after.cut == before.cut:
            continue
        assert after.sent - 30 <= ratio * room + 60  # `plan_next` counts the message that is expected in
        if told is not None and told.turns == 1:
            assert after.start >= told.plan.start, "what was said is taken, or what keeps less"


@given(st.integers(0, 40), st.integers(0, 40))
def test_similar_turns_take_the_cut_that_was_told(longer, shorter):
    """With turns that differ by two thirds of their length, what was told one turn before is what is taken."""
    turns = [(20 + (7 * n * (longer + 1)) % 20, 20 + (11 * n * (shorter + 1)) % 20) for n in range(60)]
    found = ends(turns)
    taken = [
        told is not None and told.plan.cut == after.cut
        for (before, told), (after, _) in pairwise(found)
        if after.cut != before.cut
    ]
    assert len(taken) >= 3 and sum(taken) >= 0.9 * len(taken) - 0.5


@pytest.mark.parametrize("segments", [dialogue(system=20), dialogue((880, 0))])
def test_nothing_is_said_where_nothing_can_be(segments):
    """No turn yet, or one that fills the window by itself."""
    options = rules()
    chosen = plan_next(segments, **{**options, "window": Window(2000, 10_000_000, 100)})
    assert cut_ahead(segments, chosen, **options) is None


def test_without_truncation_no_cut_comes():
    """A conversation that is refused when it is full is never cut."""
    segments = dialogue(*[(30, 30)] * 13)
    options = rules(kind=Truncation.DISABLED)
    assert cut_ahead(segments, plan_next(segments, **options), **options) is None


def test_ten_thousand_items_are_planned_for_once():
    """Looking ahead costs one plan of what is kept at most, and none once it has found something."""
    segments = dialogue(*[(20, 30)] * 4999, system=1)
    options = {**rules(), "window": Window(250_250, 10_000_000, 100)}
    counted = Counted(segments)
    chosen = plan_next(counted, **options)
    once, counted.looks = counted.looks, 0
    soon = cut_ahead(counted, chosen, **options)
    assert soon is not None and counted.looks <= 3 * once
    counted.looks = 0
    assert cut_ahead(counted, chosen, **options, ahead=soon.plan.cut) is not None
    assert counted.looks <= once
