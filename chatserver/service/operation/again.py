"""`chatserver replay`: send the ids of an answer again, through the queue, and compare what comes back.

The engine that takes the job makes the prompt from the stored ids and the ledger, and refuses if it is not, to
the id, what was sent the first time. Greedy and seeded answers must then be the same, token for token.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace

from chatserver.domain.ids import shard_of
from chatserver.domain.response import Params, Response
from chatserver.domain.tape import Delta
from chatserver.errors import ChatServerError, NotFound, Unavailable
from chatserver.ports.conversations import Conversations
from chatserver.ports.tapes import Tapes
from chatserver.ports.turns import NewTurn, Turns
from chatserver.service.fresh import fresh_id
from chatserver.wire.errors import from_failure

TIMEOUT = 600.0
"""Seconds that a replayed answer may take, queueing included."""
LOOK_AGAIN = 0.05


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of it. `same`: None when the answer was sampled without a seed, so that it may well differ."""

    prompt: int
    prompt_hash: str
    tokens: int
    same: bool | None

    def __str__(self) -> str:
        sent = f"sent the same {self.prompt} prompt tokens ({self.prompt_hash})"
        if self.same is None:
            return f"{sent}; the answer was sampled without a seed, so it is not compared"
        return f"{sent}; the {self.tokens} tokens of the answer are {'the same' if self.same else 'NOT the same'}"


async def send_again(
    conversations: Conversations, turns: Turns, tapes: Tapes, tenant: str, response_id: str
) -> Comparison:
    """Replay a response. Raises NotFound, BadRequest (its items are gone or encoded anew), Unavailable."""
    original = await turns.get(tenant, response_id)
    outcome = original.outcome
    if outcome is None or outcome.ledger is None or not outcome.usage.output:
        raise NotFound(
            f"The response {response_id!r} wrote nothing that could be compared.", param="response_id"
        )
    again = _job(original, outcome.usage.output)
    await turns.begin(NewTurn(again), queue_bound=1_000_000)
    ended = (await _end(turns, again)).outcome
    assert ended is not None and outcome.ledger is not None
    if ended.failure is not None:
        raise from_failure(ended.failure)
    new = await _ids_on_tape(tapes, again.id)
    same = _is_repeatable(original.params) and await _is_same(conversations, tapes, original, new)
    return Comparison(
        prompt=ended.usage.prompt,
        prompt_hash=outcome.ledger.prompt_hash,
        tokens=len(new),
        same=same if _is_repeatable(original.params) else None,
    )


def _job(original: Response, tokens: int) -> Response:
    shard = shard_of(original.id) or 0
    now = time.time()
    return Response(
        id=fresh_id("resp", shard),
        tenant=original.tenant,
        params=replace(original.params, replay_of=original.id, max_output_tokens=tokens),
        created_at=int(now),
        accepted_at=now,
        item_id=fresh_id("msg", shard),
        stored=False,
    )


def _is_repeatable(params: Params) -> bool:
    return params.temperature == 0 or params.seed is not None


async def _end(turns: Turns, response: Response) -> Response:
    """Wait for a response's end; what does not end in time is stopped."""
    try:
        async with asyncio.timeout(TIMEOUT):
            while True:
                found = await turns.get(response.tenant, response.id)
                if found.status.ended:
                    return found
                await asyncio.sleep(LOOK_AGAIN)
    except TimeoutError:
        await turns.stop(response.tenant, response.id, int(time.time()))
        raise Unavailable(f"No engine answered within {TIMEOUT:g} s: is the server running?") from None


async def _ids_on_tape(tapes: Tapes, response_id: str) -> tuple[int, ...]:
    ids: list[int] = []
    after = -1
    while records := await tapes.read(response_id, after):
        for record in records:
            after = record.last
            if isinstance(record.body, Delta):
                ids.extend(record.body.tokens)
    return tuple(ids)


async def _is_same(
    conversations: Conversations, tapes: Tapes, original: Response, new: tuple[int, ...]
) -> bool:
    """Compare with the ids of the answer's item, or with the tape of an answer that is no item."""
    assert original.outcome is not None
    item = original.outcome.item
    if original.conversation is None or item is None:
        return await _ids_on_tape(tapes, original.id) == new
    branch = await conversations.branch(original.tenant, original.conversation, item.id, with_ids=True)
    carried = original.outcome.ledger.carried if original.outcome.ledger else 0
    return branch[-1].emitted[carried:] == new


def verdict(response_id: str, comparison: Comparison) -> str:
    """Return what the command line says. Raises ChatServerError if the answers differ."""
    line = f"{response_id}: {comparison}"
    if comparison.same is False:
        raise ChatServerError(line, code="not_the_same")
    return line
