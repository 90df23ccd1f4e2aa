"""Who may come in, and how often: the limits of API keys, asked of the store.

    gate ───> Ticket.enter()                 one request
    answer ─> Ticket.reserve(response, …)    tokens, a place among the running answers, money

The reservation is an estimate; what was really used replaces it when the answer ends (see `settling`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from chatserver.domain.access import ALL_SCOPES, Scope
from chatserver.domain.response import Response
from chatserver.errors import ChatServerError, Forbidden, QuotaExceeded, RateLimited, Unauthenticated
from chatserver.ports.accounts import Accounts, Hold, Rate, State, Verdict
from chatserver.service.web.vigil import Vigil

log = logging.getLogger(__name__)

BYTES_PER_TOKEN = 4
"""What a token of input is estimated at."""
TOKENS_PER_MESSAGE = 4
"""What a chat template puts around a message."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom the door let in. `key`: id of the API key; `stored`: its limits are in the store."""

    tenant: str
    key: str
    scopes: frozenset[Scope] = ALL_SCOPES
    stored: bool = False

    def check(self, *allowed: Scope) -> None:
        """Return if the key has one of these scopes. Raises Forbidden."""
        if self.scopes.isdisjoint(allowed):
            raise Forbidden(
                f"This API key may not do that: expected the scope {' or '.join(allowed)}, "
                f"it has {', '.join(sorted(self.scopes)) or 'none'}.",
                code="missing_scope",
            )


class Payer(Protocol):
    """Who pays for one answer."""

    @property
    def key(self) -> str:
        """The API key's id; "" is nobody: nothing is limited or counted."""
        ...

    async def reserve(self, responses: Sequence[Response], prompt: int, output: int) -> None:
        """Set aside what each answer of about so many tokens needs: for all of them, or for none.

        Raises RateLimited, QuotaExceeded, Forbidden, Unauthenticated, Unavailable.
        """
        ...

    async def release(self, responses: Sequence[Response]) -> None:
        """Give it back: the answers do not begin."""
        ...


class Nobody:
    """Pays for what operators do."""

    key = ""

    async def reserve(self, responses: Sequence[Response], prompt: int, output: int) -> None:
        """Nothing is needed."""

    async def release(self, responses: Sequence[Response]) -> None:
        """Nothing was set aside."""


NOBODY = Nobody()


class Admission:
    """Gives out tickets."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self.vigil = Vigil(self._valid)
        """Looks after what stays open."""

    def ticket(self, caller: Caller) -> Ticket:
        """Return a request's ticket; `enter` it before anything is done for it."""
        return Ticket(caller, self._accounts, self.vigil)

    async def _valid(self, key_id: str) -> None:
        _check(await self._accounts.admit(key_id, request=False))


class Ticket:
    """One request that was let in, as a payer. `verdict`: the key's buckets after the last thing that was taken."""

    __slots__ = ("_accounts", "_holds", "_vigil", "caller", "verdict")

    def __init__(self, caller: Caller, accounts: Accounts, vigil: Vigil) -> None:
        self.caller = caller
        self.verdict: Verdict | None = None
        self._accounts = accounts
        self._vigil = vigil
        self._holds: dict[str, Hold] = {}

    @property
    def key(self) -> str:
        """See `Payer.key`."""
        return self.caller.key

    async def enter(self) -> None:
        """Take one request of the key. Raises RateLimited, Unauthenticated (revoked, expired), Unavailable."""
        if self.caller.stored:
            self.verdict = await self._accounts.admit(self.key, request=True)
            _check(self.verdict)

    def watch(self, end: Callable[[ChatServerError], None]) -> Callable[[], None]:
        """Have `end` called if the key is revoked or expires; return what ends the watch."""
        return self._vigil.join(self.key, end) if self.caller.stored else _nothing

    async def reserve(self, responses: Sequence[Response], prompt: int, output: int) -> None:
        """See `Payer.reserve`. Before it refuses, it looks whether answers have ended that still hold something."""
        if not self.caller.stored:
            return
        try:
            for response in responses:
                await self._reserve(response, prompt, output)
        except ChatServerError:
            await self.release(responses)
            raise

    async def release(self, responses: Sequence[Response]) -> None:
        """See `Payer.release`. If the store is away the holds run out by themselves."""
        for response in responses:
            hold = self._holds.pop(response.id, None)
            try:
                if hold is not None:
                    await self._accounts.release(self.key, hold)
            except ChatServerError as error:
                log.warning("a hold of %s stays until it runs out: %s", self.key, error.message)

    async def _reserve(self, response: Response, prompt: int, output: int) -> None:
        hold = _hold(response, prompt, output)
        verdict = await self._accounts.admit(self.key, request=False, hold=hold)
        if verdict.state in _FREED_BY_SETTLING:
            await self._accounts.settle(self.key)  # perhaps somebody else just did: ask again in any case
            verdict = await self._accounts.admit(self.key, request=False, hold=hold)
        self.verdict = verdict
        _check(verdict, hold, response.params.model)
        self._holds[response.id] = hold


def _nothing() -> None:
    """Leave a watch that nobody keeps."""


def estimate(texts: Sequence[str]) -> int:
    """Return about how many tokens a prompt of these messages has."""
    written = sum(math.ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN) for text in texts)
    return written + TOKENS_PER_MESSAGE * len(texts)


def month_of(timestamp: float) -> str:
    """Return the calendar month (UTC) as in 2026-11."""
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m")


def _hold(response: Response, prompt: int, output: int) -> Hold:
    """Return what to set aside: the money as if nothing of the prompt were cached."""
    price = response.price
    cost = None if price is None else price.cost(prompt=prompt, cached=0, output=output)
    return Hold(response.id, prompt + output, cost, month_of(response.created_at))


def _check(verdict: Verdict, hold: Hold | None = None, model: str = "") -> None:
    """Return if let in. Raises what the client is told."""
    if verdict.state is State.OK:
        return
    raise _refusal(verdict, hold, model)


def _refusal(verdict: Verdict, hold: Hold | None, model: str) -> ChatServerError:
    wait = None if verdict.retry_ms is None else verdict.retry_ms / 1000
    wanted = hold.tokens if hold else 0
    match verdict.state:
        case State.REQUESTS:
            return RateLimited(
                f"Rate limit reached for requests per minute (RPM): {_of(verdict.requests)}, requested 1. "
                f"Try again in {wait} s.",
                retry_after=wait,
            )
        case State.TOKENS:
            return RateLimited(
                f"Rate limit reached for tokens per minute (TPM): {_of(verdict.tokens)}, requested {wanted}. "
                f"Try again in {wait} s.",
                retry_after=wait,
            )
        case State.TOO_LARGE:
            return RateLimited(
                f"Request too large for tokens per minute (TPM): {_of(verdict.tokens)}, requested {wanted}. "
                "Shorten the input, or lower the bound on the output.",
                code="tokens_exceed_limit",
            )
        case State.CONCURRENT:
            return RateLimited(
                "This API key has as many answers in progress as it may; wait for one to end, or stop one.",
                code="concurrent_limit_exceeded",
                retry_after=wait,
            )
        case State.SPEND:
            return QuotaExceeded("This API key has spent what it may in this calendar month (UTC).")
        case State.UNPRICED:
            return Forbidden(
                f"This API key has a spending limit, and {model} has no price here: the operator must add it to the "
                "table of prices.",
                code="model_not_priced",
            )
        case State.REVOKED:
            return Unauthenticated("This API key was revoked.")
        case State.EXPIRED:
            return Unauthenticated("This API key has expired.")
        case _:
            return Unauthenticated("This API key is not known any more.")


def _of(rate: Rate | None) -> str:
    return f"limit {rate.limit}, left {rate.remaining}" if rate else "no limit"


_FREED_BY_SETTLING = (State.TOKENS, State.CONCURRENT, State.SPEND)
