"""API keys and the log of what operators did (port `Access`)."""

from __future__ import annotations

from chatserver.adapters.valkey import keys
from chatserver.adapters.valkey.client import Client
from chatserver.adapters.valkey.packing import unreadable
from chatserver.adapters.valkey.scripts import Argument, Command, script
from chatserver.domain.access import ApiKey, Limits, Scope, key_shard
from chatserver.errors import Conflict, NotFound
from chatserver.ports.access import MAX_KEYS, MAX_LOG, Deed

_SHARD = keys.REGISTRY_SHARD


class ValkeyAccess:
    """Keys lie in the shards of their tenants; their list and the log lie together in one.

    A deed is logged, and a new key listed, before it is done: what was cut off in between is known, not missing.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def create(self, key: ApiKey, deed: Deed) -> None:
        """See `Access.create`."""
        if await self._client.run(_SHARD, ("HLEN", keys.api_keys())) >= MAX_KEYS:
            raise Conflict(f"there are {MAX_KEYS} keys, which is the bound")
        place = _place(key.id)
        listed, _ = await self._client.pipeline(
            [(_SHARD, ("HSETNX", keys.api_keys(), key.id, key.tenant)), (_SHARD, _logged(deed))], again=False
        )
        if not listed:
            raise Conflict(f"there is a key {key.id} already")
        await self._client.run(place.shard, ("HSET", place.fields, *_encode(key)))

    async def get(self, key_id: str) -> ApiKey | None:
        """See `Access.get`."""
        if key_shard(key_id) is None:
            return None
        place = _place(key_id)
        flat = await self._client.run(place.shard, ("HGETALL", place.fields))
        return _decode(key_id, flat) if flat else None

    async def all(self) -> list[ApiKey]:
        """See `Access.all`."""
        names = [name.decode() for name in await self._client.run(_SHARD, ("HKEYS", keys.api_keys()))]
        places = [_place(name) for name in names]
        replies = await self._client.pipeline([(p.shard, ("HGETALL", p.fields)) for p in places])
        found = [_decode(name, flat) for name, flat in zip(names, replies, strict=True) if flat]
        return sorted(found, key=lambda key: (key.created_at, key.id))

    async def any(self) -> bool:
        """See `Access.any`."""
        return bool(await self._client.run(_SHARD, ("EXISTS", keys.api_keys())))

    async def limit(self, key_id: str, limits: Limits, deed: Deed) -> ApiKey:
        """See `Access.limit`. One step: no request meets some of the old limits and some of the new."""
        if await self.get(key_id) is None:
            raise NotFound(f"no API key with id {key_id[:80]!r}", param="key_id")
        place = _place(key_id)
        pairs = [part for name in _LIMITS for part in (name, _or_nothing(getattr(limits, name)))]
        await self._client.run(_SHARD, _logged(deed))
        changed = await self._client.run(place.shard, script("limit_key").command((place.fields,), *pairs))
        return _decode(key_id, changed)

    async def revoke(self, key_id: str, deed: Deed) -> ApiKey:
        """See `Access.revoke`. The first time stays."""
        key = await self.get(key_id)
        if key is None:
            raise NotFound(f"no API key with id {key_id[:80]!r}", param="key_id")
        if key.revoked_at:
            return key
        place = _place(key_id)
        await self._client.run(_SHARD, _logged(deed))
        await self._client.run(place.shard, ("HSET", place.fields, "revoked_at", int(deed.at)))
        return await self.get(key_id) or key

    async def log(self, limit: int) -> list[Deed]:
        """See `Access.log`."""
        command: Command = ("XREVRANGE", keys.deeds(), "+", "-", "COUNT", min(limit, MAX_LOG))
        return [_deed(fields) for _, fields in await self._client.run(_SHARD, command)]


def _place(key_id: str) -> keys.PayerKeys:
    shard = key_shard(key_id)
    if shard is None:
        raise ValueError(f"expected the id of an API key, got {key_id[:80]!r}")
    return keys.payer(key_id, shard)


def _logged(deed: Deed) -> Command:
    fields = ("at", repr(deed.at), "actor", deed.actor, "what", deed.what, "key", deed.key)
    return (
        "XADD",
        keys.deeds(),
        "MAXLEN",
        MAX_LOG,
        "*",
        *fields,
        "tenant",
        deed.tenant,
        "detail",
        deed.detail,
    )


def _deed(flat: list[bytes]) -> Deed:
    fields = {name.decode(): value.decode() for name, value in zip(flat[::2], flat[1::2], strict=True)}
    return Deed(at=float(fields.pop("at")), **fields)


def _encode(key: ApiKey) -> list[Argument]:
    """Return a key as field, value, …; a limit that is not there has no field, which is what the scripts look for."""
    limits = key.limits
    pairs: list[Argument] = ["tenant", key.tenant, "digest", key.digest, "name", key.name]
    pairs += ["scopes", " ".join(sorted(key.scopes)), "created_at", key.created_at]
    pairs += ["expires_at", key.expires_at, "revoked_at", key.revoked_at]
    for name in _LIMITS:
        value = getattr(limits, name)
        if value is not None:
            pairs += [name, value]
    return pairs


def _decode(key_id: str, flat: list[bytes]) -> ApiKey:
    fields = {name.decode(): value.decode() for name, value in zip(flat[::2], flat[1::2], strict=True)}
    try:
        return ApiKey(
            id=key_id,
            tenant=fields["tenant"],
            digest=fields["digest"],
            name=fields["name"],
            scopes=frozenset(map(Scope, fields["scopes"].split())),
            limits=Limits(**{name: int(fields[name]) for name in _LIMITS if name in fields}),
            created_at=int(fields["created_at"]),
            expires_at=int(fields["expires_at"]),
            revoked_at=int(fields["revoked_at"]),
        )
    except (KeyError, ValueError) as error:
        raise unreadable(f"an API key that this version does not write ({error!r})") from None


def _or_nothing(value: int | None) -> Argument:
    return "" if value is None else value


_LIMITS = ("requests", "tokens", "concurrent", "spend")
