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
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chatserver.domain.item import Role
from chatserver.domain.response import Truncation

EXPECTED_FROM = 8
"""User messages, the newest ones, that the next one is expected to be like."""

SCHEDULER_MARGIN = 6
"""Tokens that the scheduler itself keeps free of the window and of the pool (SGLang: 1 + 5)."""


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
class Plan:
    """What to send: the first `pinned` segments and those from index `start` on. `sent`: prompt length in tokens."""

    pinned: int
    start: int
    sent: int
    cut: str | None


class DoesNotFit(Exception):
    """No allowed plan fits. `needed` is the shortest prompt the policy allows, `limit` what would fit, in tokens."""

    def __init__(self, needed: int, limit: int, *, single: bool) -> None:
        super().__init__(f"needs {needed} tokens, {limit} fit")
        self.needed = needed
        self.limit = limit
        self.single = single
        """Whether the newest message alone (with the pinned head) is too long: truncation cannot help."""


def plan(
    segments: Sequence[Segment],
    *,
    fixed: int,
    window: Window,
    policy: Truncation,
    retention_ratio: float,
    cut: str | None = None,
) -> Plan:
    """Choose what to keep. Raises DoesNotFit.

    `fixed`: tokens that are always sent (head and cue). `cut`: the item that the last plan of this
    branch began with, None if nothing was dropped yet; a cut that is not in `segments` is ignored.
    """
    pinned = _pinned(segments)
    base = fixed + sum(segment.length for segment in segments[:pinned])
    starts = _turn_starts(segments, pinned)
    current = _stored_start(segments, starts, cut) if policy is not Truncation.DISABLED else pinned
    suffix = _suffix_lengths(segments)
    if base + suffix[current] <= window.limit:
        return _plan(segments, pinned, current, base + suffix[current])
    last = starts[-1]
    alone = base + suffix[last]
    if policy is Truncation.DISABLED:
        raise DoesNotFit(base + suffix[current], window.limit, single=alone > window.limit)
    target = base + int((window.limit - base) * retention_ratio)
    later = [start for start in starts if start > current]
    for start in later:
        if base + suffix[start] <= target:
            return _plan(segments, pinned, start, base + suffix[start])
    if alone <= window.limit:
        return _plan(segments, pinned, last, alone)
    raise DoesNotFit(alone, window.limit, single=True)


def plan_next(
    segments: Sequence[Segment],
    *,
    fixed: int,
    window: Window,
    policy: Truncation,
    retention_ratio: float,
    cut: str | None = None,
) -> Plan:
    """Choose, when an answer has ended, what the next prompt begins with. Raises DoesNotFit.

    As `plan`, but with room for a message that has not come: the high-water mark is lower by
    `expected_message`. The stored cut moves only if such a message would not fit behind it, so a message of
    at most that length never moves the cut again. `sent` counts that message in.
    """
    room = expected_message(segments, window.limit - fixed)
    return plan(
        segments,
        fixed=fixed + room,
        window=window,
        policy=policy,
        retention_ratio=retention_ratio,
        cut=cut,
    )


def expected_message(segments: Sequence[Segment], room: int) -> int:
    """Return how many tokens the next user message may well have: the longest of the newest ones.

    At most a quarter of `room`, so that one pasted file does not empty the window for the turns after it.
    """
    lengths = [segment.length for segment in segments if segment.role is Role.USER]
    return min(max(lengths[-EXPECTED_FROM:], default=0), max(room, 0) // 4)


def _plan(segments: Sequence[Segment], pinned: int, start: int, sent: int) -> Plan:
    return Plan(pinned, start, sent, cut=segments[start].item_id if start > pinned else None)


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


def _suffix_lengths(segments: Sequence[Segment]) -> list[int]:
    """Return for each index the tokens from it to the end; one entry more for the end itself."""
    lengths = [0] * (len(segments) + 1)
    for index in range(len(segments) - 1, -1, -1):
        lengths[index] = lengths[index + 1] + segments[index].length
    return lengths
