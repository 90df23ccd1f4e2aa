"""Where tapes are written and read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence, Set
from dataclasses import dataclass
from typing import Protocol

from chatserver.domain.tape import Record
from chatserver.ports.caches import Count, Look, Release, Warm


@dataclass(frozen=True, slots=True)
class Append:
    """Records to add to one tape, in order, under the writer's claim number."""

    response_id: str
    claim: int
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Appended:
    """`ok` is False when the claim is old: stop writing. `stop_asked`: a user wants this answer to end."""

    ok: bool
    stop_asked: bool


@dataclass(frozen=True, slots=True)
class Attached:
    """Records that were on a tape, the first maybe half seen; what comes behind them is announced if they are `all`."""

    records: list[Record]
    all: bool


Bundle = list[tuple[str, list[Record]]]
"""What one commit added, for one web process: (response id, its new records) for each tape it watches."""


class Tapes(Protocol):
    """Numbered, append-only, durable before announced."""

    async def commit(self, batch: Sequence[Append]) -> list[Appended]:
        """Append to many tapes in one round trip, then announce to the web processes that watch them, one bundle each.

        Appending the same record twice changes nothing and is ok: a commit whose reply was lost may be sent again.
        Whoever watches before the append gets the announcement; whoever watches later finds the records by reading.
        Raises Unavailable if the store did not answer; then some of the batch may have been written.
        """
        ...

    async def watch(self, response_ids: Sequence[str], web_id: str) -> list[int | None]:
        """Have the tapes' commits announced to a web process; return the last number on each, None: no such tape.

        Idempotent. Said again now and then: silence is taken for nobody's being there any more.
        """
        ...

    async def attach(self, response_id: str, web_id: str, after: int, *, few: int) -> Attached:
        """Watch a tape, and read what is on it after `after`, in one round trip. Raises NotFound: no tape.

        All of it if that is up to `few` sequence numbers, else a beginning, of some records.
        """
        ...

    async def unwatch(self, response_id: str, web_id: str) -> None:
        """End that."""
        ...

    async def read(self, response_id: str, after: int, *, limit: int = 1000) -> list[Record]:
        """Return up to `limit` records with `last` > `after`, the first maybe half seen. Raises NotFound: no tape."""
        ...


@dataclass(frozen=True, slots=True)
class Wake:
    """For engines: a job waits in this shard."""

    shard: int


@dataclass(frozen=True, slots=True)
class Stop:
    """For one engine: a user wants this answer to end."""

    response_id: str


Command = Wake | Stop | Warm | Look | Release | Count


class Signals(Protocol):
    """Fire-and-forget messages between processes; a lost one only costs time.

    Each iterator ends by raising Unavailable when the connection is lost; the caller listens again and re-reads.
    `ready` semantics: the iterator's first item is None, yielded once the subscription stands.
    """

    def bundles(self, web_id: str) -> AsyncIterator[Bundle | None]:
        """Yield what is announced to a web process."""
        ...

    def changes(self) -> AsyncIterator[str | None]:
        """Yield the id of each conversation whose items, running responses or own fields have changed."""
        ...

    def commands(self, engine_id: str) -> AsyncIterator[Command | None]:
        """Yield wake-ups and questions for all engines, and stops for this one."""
        ...

    async def listening(self, engine_ids: Sequence[str]) -> Set[str]:
        """Return which of these engines have a subscription to commands at this moment; a process that died has none.

        Raises Unavailable, also if only a part of the store could be asked.
        """
        ...
