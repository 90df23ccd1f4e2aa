"""What kind of server is at the other end: asked once, before anything is kept there."""

from __future__ import annotations

import logging

from redis.exceptions import ResponseError

from chatserver.adapters.valkey import keys
from chatserver.adapters.valkey.connect import Link, LinkLost
from chatserver.domain.ids import SHARDS
from chatserver.errors import StartupError

OLDEST = (6, 2)
"""The oldest server version that has every command that the scripts use."""

log = logging.getLogger(__name__)


async def kind_of(link: Link) -> tuple[bool, bool]:
    """Return whether it is a cluster, and whether one step may touch several shards. Raises LinkLost, StartupError.

    What looks like one server may be a proxy before a cluster: then a step may not.
    """
    (reply,) = await link.exchange([("INFO",)])
    if isinstance(reply, ResponseError):
        raise LinkLost(str(reply))
    lines = (line.partition(":") for line in reply.decode(errors="replace").splitlines())
    info = {name: value for name, colon, value in lines if colon}
    _check(info, link.address)
    cluster = info.get("cluster_enabled") == "1"
    return cluster, not cluster and await _joins_shards(link)


async def _joins_shards(link: Link) -> bool:
    names = [keys.queue(shard).jobs for shard in range(SHARDS)]
    (reply,) = await link.exchange([("EVAL", "return 1", len(names), *names)])
    return not isinstance(reply, ResponseError)


def _check(info: dict[str, str], address: str) -> None:
    version = info.get("valkey_version") or info.get("redis_version", "0.0")
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise StartupError(
            f"Redis at {address} is version {version}; expected {OLDEST[0]}.{OLDEST[1]} or newer"
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and info.get("maxmemory", "0") != "0":
        log.warning(
            "Redis at %s may evict conversations (maxmemory-policy %s); set noeviction", address, policy
        )
