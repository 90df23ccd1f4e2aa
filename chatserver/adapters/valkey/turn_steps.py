"""The steps of a response's life as calls of scripts: begin, stop, finish. Pure: nothing is sent here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chatserver.adapters.valkey import bills, codec, frames, keys
from chatserver.adapters.valkey.conversations import encoded_pairs
from chatserver.adapters.valkey.scripts import Argument, Command, script
from chatserver.adapters.valkey.tapes import encode, entries
from chatserver.domain.item import Conversation
from chatserver.domain.response import Finish, Outcome, Response, Status, Usage
from chatserver.domain.tape import OPENING, Ended, Record
from chatserver.ports.conversations import MAX_BRANCH
from chatserver.ports.turns import LOOKS_AGAIN, NewTurn, kept_for

IDEMPOTENCY_TTL = 24 * 3600
"""Seconds that an idempotency key is remembered. Its scope is the tenant and the shard (`ids.shard_for`)."""
_OPENING = [body for _, body in encode(OPENING)]


def milliseconds(seconds: float) -> int:
    """Return a time as the scripts take it; at least 1."""
    return max(1, int(seconds * 1000))


def begin(turn: NewTurn, queue_bound: int, *, together: bool) -> tuple[int, Command]:
    """Return the shard, and the step that admits a turn. Raises ValueError if its keys lie in two shards."""
    response = turn.response
    key = keys.response(response.id)
    queue = keys.queue(key.shard)
    remembered = turn.idempotency_key
    idempotency = keys.idempotency(key.shard, response.tenant, remembered) if remembered else key.fields
    names = [key.fields, key.tape, queue.jobs, queue.next, idempotency, *_conversation_keys(response)]
    names += [name for s in turn.siblings for name in (keys.response(s.id).fields, keys.response(s.id).tape)]
    names.append(awake(key.shard, together=together))
    watching = ["watch", turn.watcher] if turn.watcher else []
    lists = [[*_fields(turn, response), *watching], _created(turn)]
    lists += [[sibling.id, *_fields(turn, sibling)] for sibling in turn.siblings]
    return key.shard, script("begin").command(
        names,
        *(response.id, response.tenant, response.created_at, queue_bound),
        *(IDEMPOTENCY_TTL if remembered else 0, turn.fingerprint, *_OPENING),
        *(keys.ENGINES_CHANNEL, key.shard),
        *(_mode(turn), response.conversation or "", response.parent or "", turn.title, MAX_BRANCH),
        len(turn.siblings),
        *(part for one in lists for part in (len(one), *one)),
        *(encoded_pairs(turn.items) if response.conversation else ()),
    )


def _fields(turn: NewTurn, response: Response) -> list[Argument]:
    """Return a response's first fields; `watched_at` is there for those that must not run on unwatched."""
    watched = [] if turn.deserted else ["watched_at", milliseconds(response.accepted_at)]
    return [*codec.encode_response(response), *watched]


def _conversation_keys(response: Response) -> list[str]:
    if response.conversation is None:
        return []
    key = keys.conversation(response.conversation)
    if key.shard != keys.response(response.id).shard:
        raise ValueError(f"expected {response.id} and {response.conversation} in one shard")
    return [
        *(key.fields, key.items, key.up, key.running, key.responses),
        keys.index(key.shard, response.tenant),
    ]


def _mode(turn: NewTurn) -> str:
    if turn.response.conversation is None:
        return "none"
    if turn.create:
        return "create"
    return "exclusive" if turn.exclusive else "branch"


def _created(turn: NewTurn) -> Sequence[Argument]:
    response = turn.response
    if not turn.create or response.conversation is None:
        return ()
    return codec.encode_conversation(
        Conversation(response.conversation, response.tenant, response.created_at)
    )


def awake(shard: int, *, together: bool) -> str:
    """Return the key that says that the only engine needs no waking. `together`: steps may touch several shards."""
    return keys.queue(keys.REGISTRY_SHARD if together else shard).awake


def claim(
    shards: Sequence[int], engine_id: str, lease: float, most: int, engines: int, *, together: bool
) -> Command:
    """Return the step that claims up to `most` jobs of `shards`: of what waits there, the share of one of `engines`."""
    queues = [keys.queue(shard) for shard in shards]
    alone = together and engines == 1 and len(shards) > 1
    return script("claim").command(
        [
            awake(shards[0], together=together),
            *(name for queue in queues for name in (queue.jobs, queue.leases)),
        ],
        *(engine_id, milliseconds(lease), most, engines, milliseconds(LOOKS_AGAIN) if alone else 0),
        *(queue.responses for queue in queues),
    )


def claimed(engine_id: str, response_id: bytes, claim: int, before: Sequence[bytes]) -> Response:
    """Return a response that `claim` took. `before`: its fields until then."""
    now = (b"claim", b"%d" % claim, b"owner", engine_id.encode(), b"status", Status.IN_PROGRESS.encode())
    return codec.decode_response(response_id.decode(), (*before, *now))


def stop(response: Response, now: int, tape_ttl: int) -> Command:
    """Return the step that asks for a stop; it ends the response only if it was never claimed."""
    key = keys.response(response.id)
    names = [key.fields, key.tape, keys.queue(key.shard).jobs]
    if response.conversation is not None:
        own = keys.conversation(response.conversation)
        names += [own.fields, own.up, own.running, keys.index(key.shard, response.tenant)]
    names += (keys.pens(key.shard), keys.due(key.shard))
    outcome = Outcome(Status.CANCELLED, Finish.STOPPED, Usage(), completed_at=now)
    # never claimed: there is nothing behind the opening of its tape
    closing = encode([Record(OPENING[-1].last + 1, Ended(outcome))])
    return script("stop").command(
        names,
        *(response.id, response.tenant, now, kept_for(response, tape_ttl), codec.encode_outcome(outcome)),
        *(closing[0][1], closing[0][0] + 1, frames.join([frames.section(response.id, closing)])),
        *(keys.ENGINE_CHANNELS, keys.WEB_CHANNELS, response.conversation or ""),
        "-" if response.beside else response.inputs[-1] if response.inputs else "",
        bills.tail(response, outcome.usage),
    )


def finish(
    response: Response,
    outcome: Outcome,
    closing: Sequence[Record],
    packed: Mapping[str, bytes],
    discard_inputs: bool,
    *,
    tape_ttl: int,
) -> Command:
    """Return the step that ends a response; `packed` are the encoded token ids of its items."""
    key, encoded_closing = keys.response(response.id), encode(closing)
    queue = keys.queue(key.shard)
    names = [key.fields, key.tape, queue.jobs, queue.leases]
    if response.conversation is not None:
        own = keys.conversation(response.conversation)
        index = keys.index(key.shard, response.tenant)
        names += [own.fields, own.items, own.up, own.ids, own.running, index]
    names += (keys.pens(key.shard), keys.due(key.shard))
    answer = outcome.item if response.conversation is not None else None
    return script("finish").command(
        names,
        *(response.id, response.claim, outcome.status, codec.encode_outcome(outcome), outcome.completed_at),
        *(kept_for(response, tape_ttl), int(response.stored), keys.WEB_CHANNELS),
        *(frames.join([frames.section(response.id, encoded_closing)]), response.conversation or ""),
        # a sibling waits at no item, so that the head is never where it could take it from
        *("-" if response.beside else response.parent or "", int(discard_inputs)),
        *((answer.id, codec.encode_item(answer), answer.parent or "") if answer else ("", "", "")),
        *(len(response.inputs), len(packed), len(closing), closing[0].first if closing else 0),
        bills.tail(response, outcome.usage),
        *response.inputs,
        *(part for pair in packed.items() for part in pair),
        *entries(encoded_closing),
    )
