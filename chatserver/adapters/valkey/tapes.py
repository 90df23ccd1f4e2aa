"""Tapes (port `Tapes`): one stream for each response."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from chatserver.adapters.valkey import frames, keys
from chatserver.adapters.valkey.client import Client
from chatserver.adapters.valkey.scripts import Argument, Command, script
from chatserver.domain.tape import Record
from chatserver.ports.tapes import Append, Appended

COMMIT_STEP = 64
"""Tapes that one call of the append script writes: well under a millisecond of the server's time."""
MAX_WATCHERS = 64
"""Bound on the web processes that watch one tape."""
MAX_READ = 10_000
"""Bound on `limit` of `read`."""


class ValkeyTapes:
    """Numbered, append-only, durable before announced. `ok` is False for an old claim, and for a gap.

    A gap means that an earlier commit was lost: the writer stops, and the next claim reads what is there.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def commit(self, batch: Sequence[Append]) -> list[Appended]:
        """See `Tapes.commit`. One script for COMMIT_STEP tapes of a shard, one bundle a web process."""
        encoded = [encode(append.records) for append in batch]
        steps = [step for indexes in _by_shard(batch) for step in _chunks(indexes)]
        replies = await self._client.pipeline([_command(batch, encoded, step) for step in steps])
        results: list[Appended] = [Appended(ok=False, stop_asked=False)] * len(batch)
        bundles: dict[bytes, list[bytes]] = {}
        for step, reply in zip(steps, replies, strict=True):
            for place, i in enumerate(step):
                ok, stop_asked, watchers = reply[3 * place : 3 * place + 3]
                results[i] = Appended(ok=bool(ok), stop_asked=bool(stop_asked))
                if ok and watchers:
                    part = frames.section(batch[i].response_id, encoded[i])
                    for web in watchers.split():
                        bundles.setdefault(web, []).append(part)
        if bundles:
            await self._client.publish(
                [(keys.WEB_CHANNELS + web.decode(), frames.join(parts)) for web, parts in bundles.items()]
            )
        return results

    async def watch(self, response_id: str, web_id: str) -> None:
        """See `Tapes.watch`. An ended or unknown tape has nothing to announce: nothing is kept."""
        await self._client.pipeline([_watch(response_id, web_id, on=True)])

    async def watch_on(self, response_ids: Sequence[str], web_id: str) -> None:
        """See `Tapes.watch_on`."""
        await self._client.pipeline([_watch(response_id, web_id, on=True) for response_id in response_ids])

    async def unwatch(self, response_id: str, web_id: str) -> None:
        """See `Tapes.unwatch`."""
        await self._client.pipeline([_watch(response_id, web_id, on=False)])

    async def read(self, response_id: str, after: int, *, limit: int = 1000) -> list[Record]:
        """See `Tapes.read`. At most MAX_READ records."""
        key = keys.response(response_id)
        # an entry id is «last + 1», and last > after is asked for
        span: Command = ("XRANGE", key.tape, max(after, -1) + 2, "+", "COUNT", min(limit, MAX_READ))
        entries, exists = await self._client.pipeline([(key.shard, span), (key.shard, ("EXISTS", key.tape))])
        if not exists:
            raise keys.no_response(response_id)
        return [
            Record(int(entry_id.partition(b"-")[0]) - 1, frames.decode_body(fields[1]))
            for entry_id, fields in entries
        ]


Encoded = list[tuple[int, bytes]]
"""(last, body) of each record."""


def encode(records: Sequence[Record]) -> Encoded:
    """Return records as (last, encoded body). Raises ValueError if they do not follow each other."""
    for earlier, later in zip(records, islice(records, 1, None), strict=False):
        if later.first != earlier.last + 1:
            raise ValueError(f"expected a record that begins at {earlier.last + 1}, got {later.first}")
    return [(record.last, frames.encode_body(record.body)) for record in records]


def entries(encoded: Encoded) -> list[Argument]:
    """Return encoded records as entry id, body, entry id, body."""
    return [part for last, body in encoded for part in (last + 1, body)]


def _watch(response_id: str, web_id: str, *, on: bool) -> tuple[int, Command]:
    key = keys.response(response_id)
    return key.shard, script("watch").command((key.fields,), web_id, int(on), MAX_WATCHERS)


def _by_shard(batch: Sequence[Append]) -> list[list[int]]:
    shards: dict[int, list[int]] = {}
    for i, append in enumerate(batch):
        shards.setdefault(keys.response(append.response_id).shard, []).append(i)
    return list(shards.values())


def _chunks(indexes: list[int]) -> list[list[int]]:
    return [indexes[i : i + COMMIT_STEP] for i in range(0, len(indexes), COMMIT_STEP)]


def _command(batch: Sequence[Append], encoded: Sequence[Encoded], step: Sequence[int]) -> tuple[int, Command]:
    names: list[str] = []
    arguments: list[Argument] = []
    shard = 0
    for i in step:
        append, key = batch[i], keys.response(batch[i].response_id)
        shard = key.shard
        names += (key.fields, key.tape)
        first = append.records[0].first if append.records else 0
        arguments += (append.claim, first, len(append.records), *entries(encoded[i]))
    return shard, script("append").command(names, *arguments)
