"""Cuts that come soon: where the next one will be, some turns before it moves.

    turn n            turn n + 1        turn n + 2        turn n + 3
    the window fills  ·                 ·                 the cut moves
    └── found here: its prefix is made over several pauses instead of one ──┘

A cut that is found when it moves leaves one pause for its prefix. That is enough on a quiet engine; with many
conversations at once several cuts move in the same seconds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from chatserver.domain.item import Role
from chatserver.domain.planner import (
    EXPECTED_FROM,
    DoesNotFit,
    Plan,
    Policy,
    Segment,
    Window,
    plan_next,
    prompt_limit,
)
from chatserver.domain.response import Truncation

LEAD = 5
"""Turns before it moves that a cut is looked for."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """What prompts will begin with once the cut has moved, in `turns` turns' time if they are like the last ones."""

    plan: Plan
    turns: int


def cut_ahead(
    segments: Sequence[Segment],
    current: Plan,
    *,
    fixed: int,
    window: Window,
    policy: Policy,
    ahead: str | None = None,
) -> Ahead | None:
    """Say where the cut after `current` will be, None if it is more than LEAD turns away.

    `current`: what `plan_next` chose for the next turn. `ahead`: what was said the last time: it stands, as the
    prefix behind it may have been begun. The others are as for `plan_next`, which is told of what is said here.
    """
    turn = _usual_turn(segments[current.start :])
    if policy.kind is Truncation.DISABLED or not turn:
        return None
    pinned = sum(segment.length for segment in segments[: current.pinned])
    left = prompt_limit(window, policy, fixed + pinned) - current.sent
    turns = 1 + left // turn
    if turns > LEAD:
        return None
    behind = range(current.start + 1, len(segments))
    start = next((index for index in behind if segments[index].item_id == ahead), None)
    if start is not None:
        return Ahead(replace(current, start=start, cut=ahead), turns)

    # With room for one turn more than that: what does not fit when the cut moves was made in vain.
    for growth in ((turns + 1) * turn, turns * turn):
        kept = (*segments[: current.pinned], *segments[current.start :], Segment("", Role.ASSISTANT, growth))
        with contextlib.suppress(DoesNotFit):
            found = plan_next(kept, fixed=fixed, window=window, policy=policy, trim=current.trim)
            if found.cut is not None:
                return Ahead(replace(found, start=found.start + current.start - current.pinned), turns)
    return None


def _usual_turn(segments: Sequence[Segment]) -> int:
    """Return how many tokens a turn has, the newest ones taken together; 0 if there is none."""
    starts = [
        n
        for n, segment in enumerate(segments)
        if segment.role is Role.USER and (n == 0 or segments[n - 1].role is not Role.USER)
    ][-EXPECTED_FROM:]
    if not starts:
        return 0
    return -(-sum(segment.length for segment in segments[starts[0] :]) // len(starts))
