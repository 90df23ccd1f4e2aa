"""The planner: which items a prompt keeps. A pure function of lengths.

    limit = what the window and the KV pool allow for a prompt, the reserve for the answer taken off
    ├── head ──┤├─ dropped ─┤├─────────── kept ───────────┤├ cue ┤
    system,      turns before  whole turns: a user message
    tools        the cut       is never parted from its answer

A cut is rare and large: nothing moves while the prompt fits from the stored cut on; when it no longer
fits, the cut advances until at most `retention_ratio` of the room is used, and stays there. In between
every prompt begins with the previous one, so the KV cache serves all of it but the new message.

The cut moves when an answer ends, if the next message may not fit (see `plan_next`), so that the new
prefix can be put into the cache before that message comes.

A message that is too long by itself is refused with the counts, or, if the policy says so, loses its middle:

    ├── first half ──┤├─ trimmed ─┤├── second half ──┤   the template's own tokens are at the ends
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from chatserver.domain.item import Role
from chatserver.domain.ledger import Trim
from chatserver.domain.response import Truncation

EXPECTED_FROM = 8
"""User messages, the newest ones, that the next one is expected to be like."""

SCHEDULER_MARGIN = 6
"""Tokens that the scheduler itself keeps free of the window and of the pool (SGLang: 1 + 5)."""


MIN_TRIMMED = 64
"""Tokens that a trimmed message keeps at least: below it nothing is left that could be understood."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One item as the planner sees it: its name, who speaks, its length in tokens."""

    item_id: str
    role: Role
    length: int


@dataclass(frozen=True, slots=True)
class Window:
    """The room for one turn, in tokens. `reserve` is kept free for the answer."""

    context: int
    kv_tokens: int
    reserve: int

    @property
    def limit(self) -> int:
        """The longest prompt that still leaves the reserve."""
        return self.room - self.reserve

    @property
    def room(self) -> int:
        """What prompt and answer may take together."""
        return min(self.context, self.kv_tokens) - SCHEDULER_MARGIN


@dataclass(frozen=True, slots=True)
class Policy:
    """What to do when a prompt does not fit.

    `retention_ratio`: share of the room behind the instructions that a cut keeps. `post_instructions`: tokens that
    may follow the instructions, None: as many as the window takes. `cut_inside`: whether one message that is too
    long by itself may lose its middle.
    """

    kind: Truncation
    retention_ratio: float = 0.7
    post_instructions: int | None = None
    cut_inside: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send: the first `pinned` segments and those from index `start` on. `sent`: prompt length in tokens.

    `trim`: what is left out inside one of them.
    """

    pinned: int
    start: int
    sent: int
    cut: str | None
    trim: Trim | None = None


class DoesNotFit(Exception):
    """No allowed plan fits. `needed` is the shortest prompt the policy allows, `limit` what would fit, in tokens."""

    def __init__(self, needed: int, limit: int, *, single: bool) -> None:
        super().__init__(f"needs {needed} tokens, {limit} fit")
        self.needed = needed
        self.limit = limit
        self.single = single
        """Whether the newest message alone (with the pinned head) is too long: dropping others cannot help."""


def plan(
    segments: Sequence[Segment],
    *,
    fixed: int,
    window: Window,
    policy: Policy,
    cut: str | None = None,
    trim: Trim | None = None,
    ahead: str | None = None,
) -> Plan:
    """Choose what to keep. Raises DoesNotFit.

    `fixed`: tokens that are always sent (head and cue). `cut`: the item that the last plan of this branch began
    with, None if nothing was dropped yet; `trim`: what that plan left out; `ahead`: where the cut is to move, if that
    keeps no more than is allowed (see `ahead.cut_ahead`). Each is ignored if its item is not in `segments`.
    """
    cuts = policy.kind is not Truncation.DISABLED
    trim = trim if cuts else None
    pinned = _pinned(segments)
    suffix = _suffix_lengths(segments, trim)
    base = fixed + suffix[0] - suffix[pinned]
    starts = _turn_starts(segments, pinned)
    current = _stored_start(segments, starts, cut) if cuts else pinned
    limit = prompt_limit(window, policy, base) if cuts else window.limit

    def chosen(start: int) -> Plan:
        cut = segments[start].item_id if start > pinned else None
        return Plan(pinned, start, base + suffix[start], cut, _still(trim, segments, start))

    if base + suffix[current] <= limit:
        return chosen(current)
    if not cuts:
        raise DoesNotFit(base + suffix[current], limit, single=base + suffix[starts[-1]] > limit)
    target = base + int((limit - base) * policy.retention_ratio)
    for start in (_stored_start(segments, starts, ahead), *starts):
        if start > current and base + suffix[start] <= target:
            return chosen(start)
    if base + suffix[starts[-1]] <= limit:
        return chosen(starts[-1])
    return _trimmed(segments, pinned, starts[-1], base=base, target=target, limit=limit, policy=policy)


def plan_next(
    segments: Sequence[Segment],
    *,
    fixed: int,
    window: Window,
    policy: Policy,
    cut: str | None = None,
    trim: Trim | None = None,
    ahead: str | None = None,
) -> Plan:
    """Choose, when an answer has ended, what the next prompt begins with. Raises DoesNotFit.

    As `plan`, but with room for a message that has not come: the high-water mark is lower by
    `expected_message`. The stored cut moves only if such a message would not fit behind it, so a message of
    at most that length never moves the cut again. `sent` counts that message in. Nothing more is trimmed.
    """
    limit = prompt_limit(window, policy, fixed)
    room = expected_message(segments, limit - fixed)
    if policy.post_instructions is not None:
        policy = replace(policy, post_instructions=max(0, policy.post_instructions - room))
    return plan(
        segments,
        fixed=fixed + room,
        window=window,
        policy=replace(policy, cut_inside=False),
        cut=cut,
        trim=trim,
        ahead=ahead,
    )


def expected_message(segments: Sequence[Segment], room: int) -> int:
    """Return how many tokens the next user message may well have: half as many again as the longest of the newest ones.

    One in nine is longer than the eight before it, and at the end of the window it would cut in its own turn. At most
    a quarter of `room`, so that one pasted file does not empty the window for the turns after it.
    """
    lengths = [segment.length for segment in segments if segment.role is Role.USER]
    longest = max(lengths[-EXPECTED_FROM:], default=0)
    return min(longest + longest // 2, max(room, 0) // 4)


def prompt_limit(window: Window, policy: Policy, base: int) -> int:
    """Return the longest prompt that window and policy allow, in tokens, `base` of which are instructions."""
    if policy.post_instructions is None:
        return window.limit
    return min(window.limit, base + policy.post_instructions)


def _trimmed(
    segments: Sequence[Segment],
    pinned: int,
    start: int,
    *,
    base: int,
    target: int,
    limit: int,
    policy: Policy,
) -> Plan:
    """Keep the newest turn alone, its longest message without its middle. Raises DoesNotFit."""
    alone = base + sum(segment.length for segment in segments[start:])
    longest = max(segments[start:], key=lambda segment: segment.length)
    count = alone - target
    left = longest.length - count
    if not policy.cut_inside or left < MIN_TRIMMED:
        raise DoesNotFit(alone, limit, single=True)
    trim = Trim(longest.item_id, (left + 1) // 2, count)
    cut = segments[start].item_id if start > pinned else None
    return Plan(pinned, start, target, cut, trim)


def _still(trim: Trim | None, segments: Sequence[Segment], start: int) -> Trim | None:
    """Return a stored trim if its item is still sent."""
    if trim is None or all(segment.item_id != trim.item_id for segment in segments[start:]):
        return None
    return trim


def _pinned(segments: Sequence[Segment]) -> int:
    """Count the leading instructions: they are never dropped."""
    count = 0
    for segment in segments:
        if segment.role not in (Role.SYSTEM, Role.DEVELOPER):
            break
        count += 1
    return count


def _turn_starts(segments: Sequence[Segment], pinned: int) -> list[int]:
    """Return where the context may begin: at a user message that follows something else, and at the first segment."""
    return [pinned] + [
        index
        for index in range(pinned + 1, len(segments))
        if segments[index].role is Role.USER and segments[index - 1].role is not Role.USER
    ]


def _stored_start(segments: Sequence[Segment], starts: Sequence[int], cut: str | None) -> int:
    return next(
        (start for start in starts if start < len(segments) and segments[start].item_id == cut), starts[0]
    )


def _suffix_lengths(segments: Sequence[Segment], trim: Trim | None) -> list[int]:
    """Return for each index the tokens that are sent from it to the end; one entry more for the end itself."""
    lengths = [segment.length for segment in segments]
    if trim is not None:
        for index, segment in enumerate(segments):
            if segment.item_id == trim.item_id:
                lengths[index] -= trim.count
    sums = list(accumulate(reversed(lengths), initial=0))
    sums.reverse()
    return sums
