"""What keys use up: limits that are taken from, and accounts that are kept."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from chatserver.domain.response import Usage

HOLD = 30.0
"""Seconds after which a hold is looked at: has its answer ended, or never begun?"""
USAGE_MONTHS = 13
"""Months for which usage is kept."""


class State(StrEnum):
    """Why a request is let in, or is not."""

    OK = "ok"
    UNKNOWN = "unknown"
    REVOKED = "revoked"
    EXPIRED = "expired"
    REQUESTS = "requests"
    TOKENS = "tokens"
    TOO_LARGE = "too_large"
    CONCURRENT = "concurrent"
    SPEND = "spend"
    UNPRICED = "unpriced"


@dataclass(frozen=True, slots=True)
class Rate:
    """A bucket as it is now: `limit` a minute, what is left, and milliseconds until it is full again."""

    limit: int
    remaining: int
    reset_ms: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to an admission. `retry_ms`: when the same may be let in, None if waiting does not help.

    `requests`, `tokens`: the buckets after it, None where the key has no such limit.
    """

    state: State
    requests: Rate | None = None
    tokens: Rate | None = None
    retry_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """What one answer reserves before it begins: `tokens` and `cost` (picos; None: no price) are estimates.

    `month`: year and month (UTC) whose spending it belongs to, as in 2026-11.
    """

    response_id: str
    tokens: int
    cost: int | None
    month: str


@dataclass(frozen=True, slots=True)
class Used:
    """Sums over answers of one key and model on one day (UTC, YYYY-MM-DD). `cost` in picos.

    `currency`: of `cost`, "" if none of the answers had a price; `unpriced`: answers that had none.
    """

    key: str
    model: str
    day: str
    answers: int
    usage: Usage
    cost: int
    unpriced: int = 0
    currency: str = ""


class Accounts(Protocol):
    """Limits and accounts in the store, so that all processes agree.

    A hold is made before its answer begins. When an answer ends, that step also leaves a bill; settling it
    replaces the hold by what was really used, and counts the usage: once, whoever does it and however often.
    """

    async def admit(self, key_id: str, *, request: bool, hold: Hold | None = None) -> Verdict:
        """Take one request if `request`, and reserve `hold`: one step, all or nothing. The same hold twice is one."""
        ...

    async def release(self, key_id: str, hold: Hold) -> None:
        """Give back what an answer reserved that does not begin. Idempotent."""
        ...

    async def settle(self, key_id: str | None = None) -> int:
        """Settle bills: those of a key's holds, or a bounded number of all there are. Return how many."""
        ...

    async def review(self, *, early: float = 0.0) -> int:
        """Look at holds that are overdue in `early` seconds: keep those whose answers run, and release the others.

        Return how many went.
        """
        ...

    async def used(self, tenant: str, first: str, last: str) -> list[Used]:
        """Return what was settled for a tenant from day `first` to day `last`, both included."""
        ...

    async def tenants(self) -> list[str]:
        """Return the tenants with usage, for operators."""
        ...

    async def spent(self, tenant: str, key_ids: list[str], month: str) -> list[int]:
        """Return what keys of one tenant spent and hold in a month, in picos."""
        ...
