"""Commands to the right server, once or again; the only place where store errors become ours.

A single server holds all shards. Of a cluster, the client knows which server holds each shard's slot and
learns it anew when a server says that a slot has moved. Where a server has replicas, a step that writes is
done when one of them has it, too: what was acknowledged then survives a fail-over (decision 26).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from chatserver.adapters.valkey import keys
from chatserver.adapters.valkey.connect import Link, LinkLost, Reply, shown
from chatserver.adapters.valkey.kind import kind_of
from chatserver.adapters.valkey.scripts import Command, title, with_source
from chatserver.domain.ids import SHARDS
from chatserver.errors import StartupError, Unavailable

ATTEMPTS = 8
"""How often a refused command is sent (slot moved, script unknown, cluster electing); about 3 s in all."""
RETRY_AFTER = 1.0
FULL_RETRY_AFTER = 10.0
CANNOT_WRITE = "MISCONF "
"""What Valkey says to everything but reading while its file cannot be written."""
FOLLOW_WITHIN = 1.0
"""Seconds in which a replica must have a write; one that has not is not waited for again for a while."""
FOLLOW_AGAIN = 5.0
"""Seconds for which a replica that fell behind is not waited for."""
LEARN_AGAIN = 10.0
"""Seconds after which a cluster is asked anew who holds what: a new replica makes no server refuse a command."""

Sending = tuple[Link, tuple[Command, ...]]
"""Where to send a command, and what: the last reply counts."""

_REFUSED = (ResponseError, LinkLost)
log = logging.getLogger(__name__)


class Client:
    """Runs commands on the shards of one Redis server or cluster. Made by `connect`."""

    def __init__(self, link: Link, *, cluster: bool, together: bool = False) -> None:
        self.together = together
        """Whether one step may touch keys of several shards."""
        self._seed = link
        self._links = {link.address: link}
        self._homes = [link] * SHARDS
        self._members = {link.address}  # addresses of all servers, as the cluster said last
        self._cluster = cluster
        self._replicated: set[Link] = set()
        """Servers of a cluster that have a replica."""
        self._alone_until: dict[Link, float] = {}
        """Servers whose replica fell behind, and the loop's time until which it is not waited for."""
        self._learnt_at = 0.0
        self._lost_at = 0.0
        """The loop's time when a server was found not to answer, 0.0 while all do."""

    async def run(self, shard: int, command: Command, *, again: bool = True) -> Reply:
        """Run one command and return its reply. `again`: it may be sent twice if the first answer was lost.

        Raises Unavailable.
        """
        if not (self._cluster or self._lost_at):  # nearly always: one server, and nothing to sort out
            result = await _exchange(self._homes[shard], [command])
            lost = isinstance(result, LinkLost)
            if not lost and not isinstance(result[0], _REFUSED):
                return result[0]
            if lost and not again:
                raise self._unreachable(str(result))
            if not lost:
                self._next(
                    result[0], shard, command
                )  # raises unless it can be sent again: it was not begun then
            again = again and not lost
        return (await self.pipeline([(shard, command)], again=again))[0]

    async def pipeline(self, commands: Sequence[tuple[int, Command]], *, again: bool = True) -> list[Reply]:
        """Run (shard, command)s, one round trip to each server, and return the replies in their order.

        The commands of one shard run in their order. `again`: as in `run`. Raises Unavailable if any failed.
        """
        replies: list[Reply] = [None] * len(commands)
        if self._cluster and asyncio.get_running_loop().time() > self._learnt_at + LEARN_AGAIN:
            await self.learn()
        todo: dict[int, Sending] = {
            i: (self._homes[s], (command,)) for i, (s, command) in enumerate(commands)
        }
        for attempt in range(ATTEMPTS):
            if attempt > 1:
                await asyncio.sleep(min(0.01 * 2**attempt, 1.0))
            lost = await self._send(todo, replies)
            if lost and not (again and attempt == 0):
                raise self._unreachable(lost)
            refused = {i: reply for i in todo if isinstance(reply := replies[i], _REFUSED)}
            if not refused:
                if self._lost_at:
                    self._found()
                return replies
            await self._reroute(list(refused.values()))
            todo = {i: self._next(error, *commands[i]) for i, error in refused.items()}
        raise self._unreachable("the cluster did not settle")

    async def everywhere(self, command: Command) -> list[Reply]:
        """Ask each server, also one that left the cluster and lives. Raises Unavailable unless all of it answer."""
        links = list(self._links.values())
        results = await asyncio.gather(*(_exchange(link, [command]) for link in links))
        replies = []
        for link, result in zip(links, results, strict=True):
            reply = result if isinstance(result, LinkLost) else result[0]
            if not isinstance(reply, _REFUSED):
                replies.append(reply)
            elif link.address in self._members:
                raise Unavailable(f"a part of the store does not answer: {reply}", retry_after=RETRY_AFTER)
            else:
                self._links.pop(link.address, None)  # until `learn` finds it again
        return replies

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Send messages to channels, any server of a cluster being as good. Raises Unavailable."""
        await self.pipeline([(keys.REGISTRY_SHARD, ("PUBLISH", channel, data)) for channel, data in messages])

    async def subscribe(self, *channels: str) -> AsyncGenerator[tuple[bytes, bytes] | None, None]:
        """Yield None once the subscription stands, then (channel, payload). Raises Unavailable when lost."""
        try:
            async with aclosing(self._homes[keys.REGISTRY_SHARD].subscribe(channels)) as messages:
                async for message in messages:
                    yield message
        except LinkLost as error:
            await self.learn()
            raise self._unreachable(str(error)) from error

    async def close(self) -> None:
        """Close all connections. Idempotent."""
        for link in {*self._links.values(), self._seed}:
            await link.close()

    async def _send(self, todo: dict[int, Sending], replies: list[Reply]) -> str:
        """Fill in the replies; return what was lost, or ''. Modifies `replies`."""
        batches: dict[Link, list[int]] = {}
        for i, (link, _) in todo.items():
            batches.setdefault(link, []).append(i)
        steps = [self._step(link, [c for i in batch for c in todo[i][1]]) for link, batch in batches.items()]
        # one server is the rule, and a task for each step costs as much as the step
        results = [await steps[0]] if len(steps) == 1 else await asyncio.gather(*steps)
        lost = ""
        for batch, result in zip(batches.values(), results, strict=True):
            lost = str(result) if isinstance(result, LinkLost) else lost
            at = -1
            for i in batch:
                at += len(todo[i][1])
                replies[i] = result if isinstance(result, LinkLost) else result[at]
        return lost

    async def _step(self, link: Link, commands: list[Command]) -> list[Reply] | LinkLost:
        """Run commands on one server; return once a replica, if there is one, has what they wrote."""
        now = asyncio.get_running_loop().time()
        writes = any(command[0] in ("EVALSHA", "EVAL") for command in commands)
        if not writes or link not in self._replicated or now < self._alone_until.get(link, 0.0):
            return await _exchange(link, commands)
        result = await _exchange(link, [*commands, ("WAIT", 1, int(1000 * FOLLOW_WITHIN))], alone=True)
        if isinstance(result, LinkLost):
            return result
        if result.pop() == 0:
            self._alone_until[link] = now + FOLLOW_WITHIN + FOLLOW_AGAIN
            log.warning(
                "no replica of the store at %s had a write within %g s: a fail-over may lose what comes now",
                link.address,
                FOLLOW_WITHIN,
            )
        return result

    async def _reroute(self, errors: list[Exception]) -> None:
        if any(not isinstance(e, AskError | NoScriptError) or isinstance(e, MovedError) for e in errors):
            await self.learn()

    def _next(self, error: Exception, shard: int, command: Command) -> Sending:
        """Return where and what to send after a refusal. Raises Unavailable if there is no use."""
        home = self._homes[shard]
        if isinstance(error, NoScriptError):
            return home, (with_source(command),)
        if isinstance(error, LinkLost):
            return home, (command,)
        if self._cluster and isinstance(error, AskError) and not isinstance(error, MovedError):
            # the slot is on its way: its new holder takes the command only after this word
            return self._link(error.host, error.port), (("ASKING",), _sourced(command))
        if self._cluster and isinstance(error, MovedError | ClusterDownError | TryAgainError | ReadOnlyError):
            return home, (command,)
        if str(error).startswith(CANNOT_WRITE):
            raise self._full(str(error))
        log.error("the store at %s refused %s: %s", home.address, title(command), error)
        raise Unavailable(f"the store refused a step ({title(command)}); its log and ours say why")

    async def learn(self) -> None:
        """Ask a cluster who holds which slot. A failure is left to the next command, which meets it again."""
        if not self._cluster:
            return
        self._learnt_at = asyncio.get_running_loop().time()
        for link in dict.fromkeys([*self._homes, *self._links.values(), self._seed]):
            result = await _exchange(link, [("CLUSTER", "SLOTS")])
            if not isinstance(result, LinkLost) and isinstance(result[0], list):
                self._settle(result[0])
                return

    def _settle(self, ranges: list[Reply]) -> None:
        servers = [server for _, _, *servers in ranges for server in servers]
        self._members = {f"{host.decode()}:{port}" for host, port, *_ in servers if host}
        for shard in range(SHARDS):
            slot = key_slot(keys.tag(shard).encode())
            for first, last, (host, port, *_), *replicas in ranges:
                if first <= slot <= last and host:
                    self._homes[shard] = home = self._link(host.decode(), port)
                    (self._replicated.add if replicas else self._replicated.discard)(home)

    def _link(self, host: str, port: int) -> Link:
        address = f"{host}:{port}"
        if address not in self._links:
            self._links[address] = self._seed.peer(host, port)
        return self._links[address]

    def _found(self) -> None:
        away = asyncio.get_running_loop().time() - self._lost_at
        self._lost_at = 0.0
        log.warning("the store at %s answers again, after %.1f s", self._seed.address, away)

    def _full(self, detail: str) -> Unavailable:
        why = detail.removeprefix(CANNOT_WRITE).partition(" script:")[0].strip()
        log.error(
            "the store at %s writes nothing (%s): make room, then it goes on by itself",
            self._seed.address,
            why,
        )
        return Unavailable(
            "the store cannot write: its disk is full, or broken", retry_after=FULL_RETRY_AFTER
        )

    def _unreachable(self, detail: str) -> Unavailable:
        if detail.startswith(CANNOT_WRITE):
            return self._full(detail)
        log.warning("the store at %s does not answer: %s", self._seed.address, detail)
        self._lost_at = self._lost_at or asyncio.get_running_loop().time()
        return Unavailable("the store does not answer; try again in a moment", retry_after=RETRY_AFTER)


async def connect(url: str) -> Client:
    """Return a client of the server or cluster at redis://, rediss:// or unix://…. Raises StartupError."""
    try:
        link = Link.at(url)
        cluster, together = await kind_of(link)
    except (LinkLost, ValueError) as error:
        raise StartupError(
            f"cannot reach Redis at {shown(url)}: {error}; start it or unset CHATSERVER_REDIS_URL"
        ) from None
    client = Client(link, cluster=cluster, together=together)
    await client.learn()
    return client


def _sourced(command: Command) -> Command:
    return with_source(command) if command[0] == "EVALSHA" else command


async def _exchange(
    link: Link, commands: Sequence[Command], *, alone: bool = False
) -> list[Reply] | LinkLost:
    try:
        return await link.exchange(commands, alone=alone)
    except LinkLost as error:
        return error
