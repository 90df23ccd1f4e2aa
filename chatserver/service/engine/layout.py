"""A branch laid out for a prompt: its items' token ids in order, and what surrounds them.

head │ item₀ │ item₁ │ … │ itemₙ │ cue
└ the template's opening: with the first item's text, if that is the system message
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from chatserver.domain.item import Role
from chatserver.domain.ledger import Trim
from chatserver.domain.planner import Plan, Segment

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """`segments[i]` has the token ids `ids[i]`. `leading`: items of the branch that the head stands for (0 or 1).

    `summary`: the item that the end of the head stands for, `summary_tokens` long. `carried`: tokens of an answer's
    beginning that follow the cue.
    """

    head: Ids
    cue: Ids
    leading: tuple[str, ...]
    segments: tuple[Segment, ...]
    ids: tuple[Ids, ...]
    carried: int = 0
    summary: str | None = None
    summary_tokens: int = 0

    @property
    def path(self) -> tuple[str, ...]:
        """Return the branch's items, from its root on."""
        return (*self.leading, *(segment.item_id for segment in self.segments))

    @property
    def fixed(self) -> int:
        """Tokens that every prompt has: head, cue, and what follows the cue."""
        return len(self.head) + len(self.cue) + self.carried

    def prefix(self, plan: Plan) -> Ids:
        """Return what a planned prompt begins with: all but the cue."""
        return (*self.head, *(token for ids in self.kept(plan) for token in ids))

    def kept(self, plan: Plan) -> list[Ids]:
        """Return the ids of each item that a plan keeps, without what it trims."""
        kept = [*range(plan.pinned), *range(plan.start, len(self.ids))]
        return [_without(plan.trim, self.segments[index].item_id, self.ids[index]) for index in kept]

    def prompt(self, plan: Plan) -> Ids:
        """Return a planned prompt."""
        return (*self.prefix(plan), *self.cue)

    def with_summary(self, summary: tuple[str, Ids] | None) -> Layout:
        """Return the branch with a summary of what is dropped, behind the head."""
        if summary is None:
            return self
        item_id, ids = summary
        return replace(self, head=(*self.head, *ids), summary=item_id, summary_tokens=len(ids))

    def without_summary(self) -> Layout:
        """Return the branch with nothing in the place of what is dropped."""
        head = self.head[: len(self.head) - self.summary_tokens]
        return replace(self, head=head, summary=None, summary_tokens=0)

    def with_answer(self, item_id: str, ids: Ids) -> Layout:
        """Return the branch with one answer more."""
        segment = Segment(item_id, Role.ASSISTANT, len(ids))
        return replace(self, segments=(*self.segments, segment), ids=(*self.ids, ids))


def _without(trim: Trim | None, item_id: str, ids: Ids) -> Ids:
    if trim is None or trim.item_id != item_id:
        return ids
    return (*ids[: trim.first], *ids[trim.first + trim.count :])


def fingerprint(ids: Sequence[int]) -> str:
    """Return what tells one prompt from another: 16 bytes in hex."""
    return blake2b(array("I", ids).tobytes(), digest_size=16).hexdigest()
