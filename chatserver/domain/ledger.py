"""The ledger of a response: what the model saw, and where the prompt was cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise


@dataclass(frozen=True, slots=True)
class Trim:
    """`count` tokens of an item that are not sent, from its token `first` on."""

    item_id: str
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Where an answer's ids, as they were emitted, leave what the template shows of it.

    `why`: reasoning (the template drops it), spaces (it strips them), split (the same text in other tokens), text
    (the text does not say all that was emitted). `at`: the first token that differs, counted from the answer's
    opening. `emitted`, `rendered`: tokens of both. `rewritten`: later prompts have what is rendered, else what was
    emitted, which the cache has.
    """

    why: str
    at: int
    emitted: int
    rendered: int
    rewritten: bool


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the model saw: `kept` and `dropped` item ids together are the whole branch.

        branch    0 … pinned − 1 │ pinned … start − 1 │ start … items − 1
                  kept           │ dropped            │ kept

        prompt    ├─ head ─┤├─ lengths₀ ─┤├─ lengths₁ ─┤ … ├─ cue ─┤
                  the first item, if the head stands for it; then what was kept

    `window`, `sent`, `reserve`, `head` in tokens. `cut`: first kept item after the pinned ones, None if nothing was
    dropped; `next_cut`: the same for the turn that follows, chosen when this one ended; `ahead`: where it will move
    soon, None if that is further off. `prompt_hash`: of the ids that were sent, `carried` of which are the beginning
    of the answer, written by an earlier response.
    `lengths`: tokens of each kept item behind the head, as sent; `trim`: what is missing inside one of them.
    `rebuilt`: items whose ids were of another tokenizer or template and were made again for this turn.
    `summary`: the item that stands for what was dropped, `summary_tokens` long, the end of `head`.
    `difference`: of the answer, None if the template would show the very ids that were emitted.

    The lists of items are not stored with a response, which would take space with the square of a conversation's
    length: the three numbers are, and `of_branch` makes the lists from them again. `lengths` is bounded by the window.
    """

    window: int
    sent: int
    reserve: int
    policy: str
    kept: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    cut: str | None = None
    template_hash: str = ""
    carried: int = 0
    next_cut: str | None = None
    ahead: str | None = None
    pinned: int = 0
    start: int = 0
    items: int = 0
    prompt_hash: str = ""
    head: int = 0
    lengths: tuple[int, ...] = ()
    trim: Trim | None = None
    rebuilt: int = 0
    difference: Difference | None = None
    summary: str | None = None
    summary_tokens: int = 0

    def of_branch(self, path: Sequence[str]) -> Ledger:
        """Return the ledger with its lists. `path`: item ids from the root to the newest input."""
        kept, dropped = parted(path, self.pinned, self.start, self.items)
        return replace(self, kept=kept, dropped=dropped)

    @property
    def bare(self) -> Ledger:
        """The ledger without its lists, as it is stored."""
        return replace(self, kept=(), dropped=())

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Where in the prompt each item of `kept` lies: (first token, one past the last)."""
        ends = tuple(accumulate(self.lengths, initial=self.head))
        leading = ((0, self.head),) * (len(self.kept) - len(self.lengths))
        return (*leading, *pairwise(ends))


def parted(
    path: Sequence[str], pinned: int, start: int, items: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what is kept and what is dropped of a branch; for the numbers see `Ledger`."""
    return (*path[:pinned], *path[start:items]), tuple(path[pinned:start])
