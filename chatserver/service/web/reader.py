"""What reads a tape, and what its records say of the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chatserver.domain.response import Outcome
from chatserver.domain.tape import Ended, Record
from chatserver.errors import ChatServerError
from chatserver.wire.errors import from_failure


class Reader(Protocol):
    """Reads a tape up to its end: live, or from the stored response."""

    @property
    def response_id(self) -> str: ...  # noqa: D102
    @property
    def after(self) -> int: ...  # noqa: D102
    @property
    def ended(self) -> bool: ...  # noqa: D102
    async def batch(self, timeout: float | None = None) -> list[Record]: ...  # noqa: D102
    async def aclose(self) -> None: ...  # noqa: D102
    def dismiss(self, error: ChatServerError) -> None: ...  # noqa: D102


def refuse_outcome(outcome: Outcome) -> None:
    """Raise the failure that ended a response before its first word, if one did."""
    if outcome.failure is not None and outcome.item is None:
        raise from_failure(outcome.failure)


def outcome_in(records: Sequence[Record]) -> Outcome | None:
    """Return the outcome that the records end with, if they do."""
    last = records[-1].body if records else None
    return last.outcome if isinstance(last, Ended) else None
