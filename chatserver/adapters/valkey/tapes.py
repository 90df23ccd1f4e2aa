"""Tapes (port `Tapes`): one stream for each response."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from chatserver.adapters.valkey import frames, keys
from chatserver.adapters.valkey.client import Client
from chatserver.adapters.valkey.pens import Encoded, Pens
from chatserver.adapters.valkey.scripts import Argument, Command, script
from chatserver.domain.tape import Record
from chatserver.ports.tapes import Append, Appended, Attached

MAX_WATCHERS = 64
"""Bound on the web processes that watch one tape."""
MAX_READ = 10_000
"""Bound on `limit` of `read`."""
SOME = 8
"""Records that `attach` brings of a tape that has many: it is not known how many tokens one has."""


class ValkeyTapes:
    """Numbered, append-only, durable before announced. `ok` is False for an old claim, and for a gap.

    A gap means that an earlier commit was lost: the writer stops, and the next claim reads what is there.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._pens = Pens()

    async def commit(self, batch: Sequence[Append]) -> list[Appended]:
        """See `Tapes.commit`. One script for STROKE tapes of a shard, one bundle a web process."""
        encoded = [encode(append.records) for append in batch]
        strokes = self._pens.take(batch)
        commands = [stroke.command(self._pens.name, batch, encoded) for stroke in strokes]
        replies = await self._client.pipeline(commands)
        results: list[Appended] = [Appended(ok=False, stop_asked=False)] * len(batch)
        bundles: dict[str, list[bytes]] = {}
        for stroke, reply in zip(strokes, replies, strict=True):
            for i, seen in self._pens.put(stroke, reply, batch).items():
                results[i] = seen.appended
                if seen.channels:
                    part = frames.section(batch[i].response_id, encoded[i])
                    for channel in seen.channels:
                        bundles.setdefault(channel, []).append(part)
        if bundles:
            await self._client.publish([(channel, frames.join(parts)) for channel, parts in bundles.items()])
        return results

    async def watch(self, response_ids: Sequence[str], web_id: str) -> list[int | None]:
        """See `Tapes.watch`. Nothing is kept for a tape that has ended."""
        replies = await self._client.pipeline([_watch(name, web_id, on=True) for name in response_ids])
        return [top - 1 if top else None for top, _ in replies]

    async def attach(self, response_id: str, web_id: str, after: int, *, few: int) -> Attached:
        """See `Tapes.attach`."""
        reading = (_entry_after(after), few, SOME)
        (reply,) = await self._client.pipeline([_watch(response_id, web_id, *reading, on=True)])
        top, found = reply
        if not top:
            raise keys.no_response(response_id)
        records = _records(found)
        return Attached(records, all=(records[-1].last if records else after) >= top - 1)

    async def unwatch(self, response_id: str, web_id: str) -> None:
        """See `Tapes.unwatch`."""
        await self._client.pipeline([_watch(response_id, web_id, on=False)])

    async def read(self, response_id: str, after: int, *, limit: int = 1000) -> list[Record]:
        """See `Tapes.read`. At most MAX_READ records."""
        key = keys.response(response_id)
        span: Command = ("XRANGE", key.tape, _entry_after(after), "+", "COUNT", min(limit, MAX_READ))
        found, exists = await self._client.pipeline([(key.shard, span), (key.shard, ("EXISTS", key.tape))])
        if not exists:
            raise keys.no_response(response_id)
        return _records(found)


def encode(records: Sequence[Record]) -> Encoded:
    """Return records as (last, encoded body). Raises ValueError if they do not follow each other."""
    for earlier, later in pairwise(records):
        if later.first != earlier.last + 1:
            raise ValueError(f"expected a record that begins at {earlier.last + 1}, got {later.first}")
    return [(record.last, frames.encode_body(record.body)) for record in records]


def entries(encoded: Encoded) -> list[Argument]:
    """Return encoded records as entry id, body, entry id, body."""
    return [part for last, body in encoded for part in (last + 1, body)]


def _entry_after(after: int) -> int:
    """Return the entry id to read from: one is «last + 1», and last > after is asked for."""
    return max(after, -1) + 2


def _records(found: Sequence[tuple[bytes, Sequence[bytes]]]) -> list[Record]:
    return [
        Record(int(entry_id.partition(b"-")[0]) - 1, frames.decode_body(fields[1]))
        for entry_id, fields in found
    ]


def _watch(response_id: str, web_id: str, *reading: Argument, on: bool) -> tuple[int, Command]:
    key = keys.response(response_id)
    names = (key.fields, keys.pens(key.shard), key.tape)
    return key.shard, script("watch").command(names, web_id, int(on), MAX_WATCHERS, *reading)
