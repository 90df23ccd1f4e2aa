"""Where turns are begun, claimed, and ended: the job side of a response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from chatserver.domain.item import Item
from chatserver.domain.response import Outcome, Response
from chatserver.domain.tape import Record


@dataclass(frozen=True, slots=True)
class NewTurn:
    """All that begins a turn.

    `items`: the input, to be appended under `response.parent` (first to last). `siblings`: more answers to it; they
    have no input of their own, and move nothing. `exclusive`: refuse with
    Conflict while another turn of the conversation runs, and refuse if the head is no longer
    `response.parent`; False: make a branch there. `create`: the conversation does not exist yet and is
    made in the same step, titled `title` (an existing conversation without a title gets it, too).
    `watcher`: web process that wants the tape's announcements from the start; the opening itself (`tape.OPENING`) is
    not announced.
    """

    response: Response
    items: tuple[Item, ...] = ()
    siblings: tuple[Response, ...] = ()
    exclusive: bool = False
    create: bool = False
    title: str = ""
    idempotency_key: str | None = None
    fingerprint: str = ""
    watcher: str | None = None
    deserted: bool = True
    """Whether it may run on without anybody watching for as long as it likes; False: `Turns.unwatched` counts."""


@dataclass(frozen=True, slots=True)
class Begun:
    """`fresh` is False when the idempotency key was known: the response is the earlier one."""

    response_id: str
    fresh: bool


class Turns(Protocol):
    """Responses as jobs. Every step on one response is atomic.

    A claim is a lease: an engine that does not renew it in time loses the job to another; what it
    writes afterwards, under its old claim number, is refused.
    """

    async def begin(self, turn: NewTurn, *, queue_bound: int) -> Begun:
        """Append the input, create the response and its tape (Accepted, Queued), queue the job, wake the engines.

        Not if there is one that looks again anyway (see `claim`).

        All or nothing, the siblings included. Raises NotFound (conversation, parent), Conflict (busy; an
        idempotency key that was used with another `fingerprint`), Overloaded (the shard's queue would hold more
        than `queue_bound` jobs).
        """
        ...

    async def known(self, turn: NewTurn) -> str | None:
        """Return the response that a turn's idempotency key began earlier, None if there is none. Raises Conflict."""
        ...

    async def get(self, tenant: str, response_id: str) -> Response:
        """Return it. Raises NotFound."""
        ...

    async def running(self, tenant: str, conversation_id: str) -> list[Response]:
        """Return up to MAX_RUNNING responses of a conversation that have not ended, the oldest first.

        Raises NotFound.
        """
        ...

    async def tenant_of(self, response_id: str) -> str:
        """Return whose a response is; for operators, not for clients. Raises NotFound."""
        ...

    async def delete(self, tenant: str, response_id: str) -> None:
        """Forget a response and its tape; its items stay. Raises NotFound, Conflict (it still runs)."""
        ...

    async def stop(self, tenant: str, response_id: str, now: int) -> Response:
        """Ask for a stop; idempotent. A job that no engine holds ends at once as CANCELLED, its input kept;
        otherwise the engine that holds it is told. Raises NotFound. Returns the response as it is then.
        """
        ...

    async def claim(
        self, engine_id: str, *, lease: float, most: int = 1, engines: int = 1, shard: int | None = None
    ) -> list[Response]:
        """Take the oldest waiting jobs (of one shard or any) for `lease` seconds. Their claim numbers grow.

        Of what waits the share of one of `engines`, rounded up, and at most `most` or MAX_CLAIM; none only if nothing
        waits. An only engine that got some, and less than it has room for, must claim again within LOOKS_AGAIN: it may
        not be woken before that.
        """
        ...

    async def renew(self, engine_id: str, response_ids: Sequence[str], *, lease: float) -> list[str]:
        """Hold the claims for another `lease` seconds; return the ids that are no longer this engine's."""
        ...

    async def release(self, engine_id: str) -> int:
        """Put all jobs of an engine that is gone or draining back at the front of their queues; return how many.

        Each tape gets Interrupted, and is announced. Whoever held the job can neither write nor end it any more.
        """
        ...

    async def reap(self) -> int:
        """Put all jobs whose lease ran out back at the front of their queues, as `release` does; return how many."""
        ...

    async def finish(
        self,
        response: Response,
        outcome: Outcome,
        closing: Sequence[Record],
        ids: Mapping[str, tuple[int, ...]],
        *,
        template_hash: str = "",
        emitted: Sequence[int] = (),
        discard_inputs: bool = False,
    ) -> bool:
        """End a response: append `closing` to its tape, store `outcome` and its item, keep `ids` of items (and what
        the model `emitted` with those of the answer), free the conversation, drop the job; then announce. One step;
        returns False, and changes nothing, if the claim is old or the job was put back.

        The conversation's head moves to the answer if it still is the last input item (or `response.parent` when
        there were none); a sibling's answer never takes it. `discard_inputs`: the turn was refused: its input
        goes, the head goes back.
        """
        ...

    async def unwatched(self, response_ids: Sequence[str]) -> list[float | None]:
        """Return for how many seconds nobody has watched each; None: it was begun to run without readers."""
        ...

    async def ahead(self, response_ids: Sequence[str]) -> list[int | None]:
        """Return how many jobs will be claimed before each of these; None: it does not wait in a queue."""
        ...

    async def waiting(self) -> int:
        """Return how many jobs wait in all queues."""
        ...


MAX_CLAIM = 32
"""Jobs that one claim takes at most: each brings its whole request."""

LOOKS_AGAIN = 0.1
"""Seconds after a claim of an only engine; what began then may wait for its next claim without a wake-up."""

MAX_RUNNING = 64
"""Bound on what `Turns.running` returns."""

RESPONSE_TTL = 3600
"""Seconds that an ended tape, and an ended response with `stored` False, stays readable, if nothing else is set."""
FLEETING_TTL = 60
"""The same for what is `fleeting`: readers that lag behind still get the end."""


def kept_for(response: Response, tape_ttl: int) -> int:
    """Return for how many seconds an ended response's tape stays, and itself if it is not stored."""
    return min(FLEETING_TTL, tape_ttl) if response.fleeting else tape_ttl
