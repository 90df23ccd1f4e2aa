"""Responses as jobs (port `Turns`)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import chain

from chatserver.adapters.valkey import codec, frames, keys, packing
from chatserver.adapters.valkey import turn_steps as steps
from chatserver.adapters.valkey.client import Client
from chatserver.adapters.valkey.refusals import refused, reused_key
from chatserver.adapters.valkey.scripts import Command, script
from chatserver.domain.ids import SHARDS
from chatserver.domain.response import Outcome, Response
from chatserver.domain.tape import Interrupted, Record
from chatserver.errors import Unavailable
from chatserver.ports.turns import MAX_CLAIM, MAX_RUNNING, Begun, NewTurn

REAP_STEP = 500
"""Jobs that one call of the put-back script takes from a shard when their leases ran out."""
_INTERRUPTED = frames.encode_body(Interrupted())


class ValkeyTurns:
    """Responses as jobs. Every step on one response is one script; leases run on the server's clock."""

    def __init__(self, client: Client, tape_ttl: int) -> None:
        self._client = client
        self._tape_ttl = tape_ttl
        self._served = 0
        """The shard that the last job was taken from."""

    async def begin(self, turn: NewTurn, *, queue_bound: int) -> Begun:
        """See `Turns.begin`. The response's id makes it idempotent, so a lost answer is asked again."""
        shard, command = steps.begin(turn, queue_bound, together=self._client.together)
        state, *rest = await self._client.run(shard, command)
        if state == b"known":
            return Begun(rest[0].decode(), fresh=False)
        if state != b"ok":
            error = refused(state, keys.no_conversation(turn.response.conversation or ""))
            raise error or Unavailable(f"the store says {state!r} of a turn that was to begin")
        return Begun(turn.response.id, fresh=True)

    async def known(self, turn: NewTurn) -> str | None:
        """See `Turns.known`."""
        shard, key = keys.response(turn.response.id).shard, turn.idempotency_key
        if key is None:
            return None
        kept = await self._client.run(shard, ("GET", keys.idempotency(shard, turn.response.tenant, key)))
        if kept is None:
            return None
        response_id, _, fingerprint = kept.decode().partition(" ")
        if fingerprint != turn.fingerprint:
            raise reused_key()
        return response_id

    async def get(self, tenant: str, response_id: str) -> Response:
        """See `Turns.get`."""
        key = keys.response(response_id)
        flat = await self._client.run(key.shard, ("HGETALL", key.fields))
        found = codec.decode_response(response_id, flat) if flat else None
        if found is None or found.tenant != tenant:
            raise keys.no_response(response_id)
        return found

    async def running(self, tenant: str, conversation_id: str) -> list[Response]:
        """See `Turns.running`."""
        key = keys.conversation(conversation_id)
        commands: list[Command] = [("HGET", key.fields, "tenant"), ("SMEMBERS", key.running)]
        owner, names = await self._client.pipeline([(key.shard, command) for command in commands])
        if owner != tenant.encode():
            raise keys.no_conversation(conversation_id)
        ids = sorted(name.decode() for name in names)[:MAX_RUNNING]
        fields = [keys.response(response_id).fields for response_id in ids]
        found = await self._client.pipeline([(key.shard, ("HGETALL", field)) for field in fields])
        running = [codec.decode_response(name, flat) for name, flat in zip(ids, found, strict=True) if flat]
        return sorted(
            (response for response in running if not response.status.ended),
            key=lambda response: (response.accepted_at, response.id),
        )

    async def tenant_of(self, response_id: str) -> str:
        """See `Turns.tenant_of`."""
        key = keys.response(response_id)
        tenant = await self._client.run(key.shard, ("HGET", key.fields, "tenant"))
        if tenant is None:
            raise keys.no_response(response_id)
        return tenant.decode()

    async def delete(self, tenant: str, response_id: str) -> None:
        """See `Turns.delete`."""
        response = await self.get(tenant, response_id)
        key = keys.response(response_id)
        names = [key.fields, key.tape]
        if response.conversation is not None:
            names.append(keys.conversation(response.conversation).responses)
        state, *_ = await self._client.run(
            key.shard, script("delete_response").command(names, tenant, response_id), again=False
        )
        error = refused(state, keys.no_response(response_id))
        if error is not None:
            raise error

    async def stop(self, tenant: str, response_id: str, now: int) -> Response:
        """See `Turns.stop`."""
        response = await self.get(tenant, response_id)
        if response.status.ended:
            return response
        command = steps.stop(response, now, self._tape_ttl)
        state, *rest = await self._client.run(keys.response(response_id).shard, command)
        error = refused(state, keys.no_response(response_id))
        if error is not None:
            raise error
        return codec.decode_response(response_id, rest[0])

    async def claim(
        self, engine_id: str, *, lease: float, most: int = 1, engines: int = 1, shard: int | None = None
    ) -> list[Response]:
        """See `Turns.claim`. Of all shards in one step; in a cluster lengths first, then a step for each that has jobs.

        A claim whose answer was lost is not sent again: its jobs come back when the lease runs out.
        """
        most = min(most, MAX_CLAIM)
        if shard is not None:
            wanted = {(shard,): most}
        elif self._client.together:
            wanted = {tuple(self._in_turn()): most}
        else:
            wanted, engines = await self._quotas(most, engines), 1
        replies = await asyncio.gather(
            *(self._claim(shards, engine_id, lease, count, engines) for shards, count in wanted.items()),
            return_exceptions=True,
        )
        found = [job for jobs in replies if not isinstance(jobs, BaseException) for job in jobs]
        for error in replies:
            # if some were lost, the others are held; the next claim meets the fault again
            if isinstance(error, BaseException) and not (found and isinstance(error, Unavailable)):
                raise error
        if found:
            self._served = keys.response(found[-1].id).shard
        return found

    async def renew(self, engine_id: str, response_ids: Sequence[str], *, lease: float) -> list[str]:
        """See `Turns.renew`."""
        by_shard: dict[int, list[str]] = {}
        for response_id in response_ids:
            by_shard.setdefault(keys.response(response_id).shard, []).append(response_id)

        def ask(shard: int, ids: list[str]) -> tuple[int, Command]:
            names = keys.queue(shard)
            arguments = (engine_id, steps.milliseconds(lease), names.responses, *ids)
            return shard, script("renew").command((names.leases,), *arguments)

        replies = await self._client.pipeline([ask(shard, ids) for shard, ids in by_shard.items()])
        return [lost.decode() for reply in replies for lost in reply]

    async def release(self, engine_id: str) -> int:
        """See `Turns.release`."""
        return sum(await self._put_back(engine_id))

    async def reap(self) -> int:
        """See `Turns.reap`."""
        total, counts = 0, [REAP_STEP]
        while max(counts) == REAP_STEP:
            counts = await self._put_back("")
            total += sum(counts)
        return total

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
        """See `Turns.finish`. Also False if `closing` would leave a gap on the tape."""
        packed = {
            item_id: packing.encode_ids(
                of_item, template_hash, emitted if item_id == response.item_id else ()
            )
            for item_id, of_item in ids.items()
        }
        command = steps.finish(response, outcome, closing, packed, discard_inputs, tape_ttl=self._tape_ttl)
        return bool(await self._client.run(keys.response(response.id).shard, command))

    async def unwatched(self, response_ids: Sequence[str]) -> list[float | None]:
        """See `Turns.unwatched`. By the server's clock, which web processes' watches set, too."""
        places: dict[int, list[int]] = {}
        for i, response_id in enumerate(response_ids):
            places.setdefault(keys.response(response_id).shard, []).append(i)

        def ask(shard: int, indexes: list[int]) -> tuple[int, Command]:
            names = keys.queue(shard)
            ids = [response_ids[i] for i in indexes]
            return shard, script("unwatched").command((names.leases,), names.responses, *ids)

        replies = await self._client.pipeline([ask(*place) for place in places.items()])
        ages = dict(zip(chain.from_iterable(places.values()), chain.from_iterable(replies), strict=True))
        return [ages[i] / 1000 if ages[i] >= 0 else None for i in range(len(response_ids))]

    async def ahead(self, response_ids: Sequence[str]) -> list[int | None]:
        """See `Turns.ahead`. Engines take shards in turn: of each other shard, as many as are before it in its own."""

        def rank(response_id: str) -> tuple[int, Command]:
            shard = keys.response(response_id).shard
            return shard, ("ZRANK", keys.queue(shard).jobs, response_id)

        ranks = await self._client.pipeline([rank(response_id) for response_id in response_ids])
        lengths = await self._lengths() if any(r is not None for r in ranks) else []
        # its own shard holds more than `rank` jobs, so it counts as what is before it there
        return [None if r is None else sum(min(length, r) for length in lengths) for r in ranks]

    async def waiting(self) -> int:
        """See `Turns.waiting`."""
        return sum(await self._lengths())

    async def _lengths(self) -> list[int]:
        return await self._client.pipeline([(s, ("ZCARD", keys.queue(s).jobs)) for s in range(SHARDS)])

    async def _claim(
        self, shards: Sequence[int], engine_id: str, lease: float, most: int, engines: int
    ) -> list[Response]:
        together = self._client.together
        command = steps.claim(shards, engine_id, lease, most, engines, together=together)
        taken = await self._client.run(shards[0], command, again=False)
        return [steps.claimed(engine_id, *job) for job in taken]

    async def _quotas(self, most: int, engines: int) -> dict[tuple[int, ...], int]:
        """Return how many jobs to take of which shards, each a step of its own, for the share of one of `engines`."""
        lengths = await self._lengths()
        quotas: dict[tuple[int, ...], int] = {}
        left = min(most, -(-sum(lengths) // engines))
        while left:
            for shard in self._in_turn():
                if left and quotas.get((shard,), 0) < lengths[shard]:
                    quotas[shard,] = quotas.get((shard,), 0) + 1
                    left -= 1
        return quotas

    def _in_turn(self) -> list[int]:
        """Return the shards, beginning behind the last one served, so that none is favoured."""
        return [(self._served + 1 + i) % SHARDS for i in range(SHARDS)]

    async def _put_back(self, engine_id: str) -> list[int]:
        def ask(shard: int) -> tuple[int, Command]:
            names = keys.queue(shard)
            arguments = (engine_id, names.responses, keys.ENGINES_CHANNEL, shard, REAP_STEP, _INTERRUPTED)
            return shard, script("put_back").command((names.leases, names.jobs, keys.pens(shard)), *arguments)

        replies = await self._client.pipeline([ask(shard) for shard in range(SHARDS)])
        await self._announce([reply[i : i + 3] for reply in replies for i in range(0, len(reply), 3)])
        return [len(reply) // 3 for reply in replies]

    async def _announce(self, put_back: Sequence[tuple[bytes, int, bytes]]) -> None:
        """Tell the watchers of jobs that were put back: (response id, entry id of Interrupted, watchers)."""
        messages = []
        for response_id, entry, watchers in put_back:
            bundle = frames.join([frames.section(response_id.decode(), [(entry - 1, _INTERRUPTED)])])
            messages += [(keys.WEB_CHANNELS + web.decode(), bundle) for web in watchers.split()]
        await self._client.publish(messages)
