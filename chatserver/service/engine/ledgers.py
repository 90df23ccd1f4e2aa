"""Ledgers as prompts are planned: what is written into a new one, where the newest one says that the cut is."""

from __future__ import annotations

from typing import Any

from chatserver.domain.ledger import Ledger, parted
from chatserver.domain.planner import Plan
from chatserver.domain.response import Params, Response
from chatserver.service.engine.layout import Ids, Layout, fingerprint
from engine.contract import ModelCard


def planned(
    card: ModelCard,
    params: Params,
    layout: Layout,
    chosen: Plan,
    ids: Ids,
    *,
    reserve: int,
    rebuilt: int,
    ahead: str | None,
) -> Ledger:
    """Return the ledger of a prompt that sends `ids`. Its cut stays until the answer has ended."""
    leading, path = len(layout.leading), layout.path
    pinned, start = leading + chosen.pinned, leading + chosen.start
    kept, dropped = parted(path, pinned, start, len(path))
    return Ledger(
        window=card.context,
        sent=len(ids),
        reserve=reserve,
        policy=params.truncation.value,
        kept=kept,
        dropped=dropped,
        cut=chosen.cut,
        next_cut=chosen.cut,
        ahead=ahead,
        template_hash=card.template_hash,
        pinned=pinned,
        start=start,
        items=len(path),
        carried=layout.carried,
        prompt_hash=fingerprint(ids),
        head=len(layout.head),
        lengths=tuple(map(len, layout.kept(chosen))),
        trim=chosen.trim,
        rebuilt=rebuilt,
        summary=layout.summary,
        summary_tokens=layout.summary_tokens,
    )


def cut_of(newest: Response | None) -> dict[str, Any]:
    """Return where the newest answer of a branch said that the next prompt is cut, for `plan` and `plan_next`."""
    ledger = newest.outcome.ledger if newest and newest.outcome else None
    return cut_in(ledger, ledger.next_cut) if ledger else {}


def cut_in(ledger: Ledger, cut: str | None) -> dict[str, Any]:
    """Return the same for one of a ledger's cuts."""
    return {"cut": cut, "trim": ledger.trim, "ahead": ledger.ahead}
