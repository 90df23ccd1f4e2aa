"""Who is calling, and may a browser's page of that origin call at all.

    CHATSERVER_API_KEYS      static keys: unlimited, all scopes
    chatserver keys create   stored keys: scopes and limits of their own

Both are kept hashed and compared in constant time. While there is neither, everybody who reaches the loopback
address is tenant `local`; since any web page can reach it too, through its visitor's browser, such requests must
come from this server's own page, or one that was allowed, and name a local host.
"""

from __future__ import annotations

import hmac
import ipaddress
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from hashlib import sha256
from urllib.parse import urlsplit

from chatserver.domain.access import ApiKey, matches, parse_token
from chatserver.errors import Forbidden, Unauthenticated
from chatserver.ports.access import MAX_KEYS, Access
from chatserver.service.web.admission import Caller
from chatserver.service.web.once import Once

LOCAL = "local"
MAX_KEY = 512
MAX_HOST = 300
"""Characters of a Host header: the longest name that DNS has, and a port."""
MAX_NAMES = 256
"""Hosts that are kept as they were understood: to look at one takes longer than all else about who needs no key."""
FRESH = 1.0
"""Seconds after which a server without keys looks again whether there are some."""


class Keys:
    """The configured and the stored API keys."""

    def __init__(
        self,
        pairs: Iterable[tuple[str, str]],
        *,
        host: str = "",
        access: Access | None = None,
        origins: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`pairs`: (tenant, key). `host`: the address that is served, a good name for it as well.

        `origins`: pages of these may call, too.
        """
        self._hashed = [(_digest(key), tenant) for tenant, key in pairs]
        self._host = host
        self._access = access
        self._origins = frozenset(origins)
        self._clock = clock
        self._known: dict[str, ApiKey] = {}
        self._any_stored = False
        self._looked_at = float("-inf")
        self._look_at_stored = Once(self._look)

    async def required(self) -> bool:
        """Whether a key must be sent: once there is one. Raises Unavailable."""
        if self._hashed or self._any_stored or self._access is None:
            return bool(self._hashed) or self._any_stored
        if self._clock() - self._looked_at > FRESH:
            await self._look_at_stored()
        return self._any_stored

    async def caller(self, headers: Mapping[str, str]) -> Caller:
        """Return who sent an HTTP request. Raises Unauthenticated, Forbidden, Unavailable."""
        if not await self.required():
            self.check_host(headers)
            self.check_origin(headers)
            return Caller(LOCAL, LOCAL)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthenticated("Missing API key: send the header 'Authorization: Bearer <key>'.")
        return await self.caller_of(token.strip())

    async def caller_of(self, token: str) -> Caller:
        """Return whose key that is; whether it was revoked, its limits say. Raises Unauthenticated, Unavailable."""
        if not await self.required():
            return Caller(LOCAL, LOCAL)
        found = self._static(token) or await self._stored(token)
        if found is None:
            raise Unauthenticated(f"Incorrect API key provided: {_hint(token)}.")
        return found

    def check_host(self, headers: Mapping[str, str]) -> None:
        """Without keys, refuse names that a stranger's DNS could point here. Raises Forbidden."""
        name = _host_name(headers.get("host", ""))
        if name in ("localhost", self._host) or name.endswith(".localhost") or _is_address(name):
            return
        raise Forbidden(
            f"Host: expected an address or localhost, got {name[:80]!r}; "
            "to serve other names set CHATSERVER_API_KEYS, or make a key: chatserver keys create.",
            code="host_not_allowed",
        )

    def check_origin(self, headers: Mapping[str, str]) -> None:
        """Refuse a browser's request that another site's page makes. Raises Forbidden."""
        origin = headers.get("origin")
        if origin is None or origin in self._origins:
            return
        netloc = urlsplit(origin).netloc if _sane(origin) else ""
        # A page cannot set these headers itself without asking first, and we never say yes to that.
        if netloc and netloc in (headers.get("host"), headers.get("x-forwarded-host")):
            return
        raise Forbidden(
            f"Origin: expected this server's own or one of CHATSERVER_CORS_ORIGINS, got {origin[:80]!r}.",
            code="origin_not_allowed",
        )

    async def _look(self) -> None:
        assert self._access is not None
        self._any_stored = await self._access.any()
        self._looked_at = self._clock()

    def _static(self, token: str) -> Caller | None:
        digest = _digest(token[:MAX_KEY])
        found = None
        # Every key is compared, so that the time taken says nothing.
        for known, tenant in self._hashed:
            if hmac.compare_digest(known, digest):
                found = Caller(tenant, f"static-{tenant}")
        return found

    async def _stored(self, token: str) -> Caller | None:
        parsed = parse_token(token)
        if parsed is None or self._access is None:
            return None
        key_id, secret = parsed
        # A key never changes but for being revoked, and that is looked up with its limits, at every request.
        key = self._known.get(key_id) or await self._access.get(key_id)
        if key is None or not matches(key, secret):
            return None
        if len(self._known) < MAX_KEYS:
            self._known[key_id] = key
        return Caller(key.tenant, key.id, key.scopes, stored=True)


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogateescape")).digest()


def _hint(token: str) -> str:
    return f"{token[:3]}…{token[-2:]}" if len(token) >= 12 else "too short"


@lru_cache(MAX_NAMES)
def _host_name(host: str) -> str:
    return (urlsplit(f"//{host}").hostname or "") if len(host) <= MAX_HOST and _sane(host) else ""


@lru_cache(MAX_NAMES)
def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _sane(value: str) -> bool:
    try:
        urlsplit(value if "//" in value else f"//{value}")
    except ValueError:
        return False
    return True
