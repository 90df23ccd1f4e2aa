"""What a turn came to: its tokens, its times, and what the next turn must know."""

from __future__ import annotations

import time
from dataclasses import asdict, replace

from chatserver.domain.ledger import Difference, Ledger
from chatserver.domain.response import Response, Timing, Usage
from chatserver.service.engine.generation import Generation
from chatserver.service.engine.prompting import Prompt, Upcoming
from chatserver.service.engine.written import Written
from engine.token_contract import Shown


def usage(
    prompt: Prompt | None, generation: Generation | None, written: Written, shown: Shown, *, failed: bool
) -> Usage:
    """Count tokens; a prompt that failed before its first token counts nothing."""
    # the template knows of an end mark that nothing followed; the splitter, of reasoning that no template drops
    output, reasoning = written.output, max(0, shown.reasoning - written.carried, written.reasoning)
    if prompt is None or (failed and not output):
        return Usage(output=output, reasoning=reasoning)
    cached = min(generation.cached, prompt.length) if generation else 0
    return Usage(prompt.length, cached, output, reasoning)


def timing(response: Response, generation: Generation | None, written: Written, claimed_at: float) -> Timing:
    """Return the durations; wall clock for the queue (two processes), monotonic for the rest."""
    now = time.monotonic()
    queued = max(0.0, time.time() - (now - claimed_at) - response.accepted_at)
    if generation is None or not generation.first_at:
        return Timing(queued_ms=round(queued * 1000, 2))
    first, new = generation.first_at, len(written.ids) - written.before
    return Timing(
        queued_ms=round(queued * 1000, 2),
        engine_ttft_ms=round((first - generation.started_at) * 1000, 2),
        ttft_ms=round((queued + first - claimed_at) * 1000, 2),
        tokens_per_second=round((new - 1) / (now - first), 2) if new > 1 and now > first else 0.0,
    )


def ledger(planned: Ledger, shown: Shown, upcoming: Upcoming | None) -> Ledger:
    """Return a turn's ledger with what is known once it has ended."""
    return replace(
        planned,
        next_cut=upcoming.cut if upcoming else planned.next_cut,
        ahead=upcoming.ahead.cut if upcoming and upcoming.ahead else None,
        difference=Difference(**asdict(shown.difference)) if shown.difference else None,
    )
