"""Who is calling, and may a browser's page of that origin call at all.

Keys are kept hashed and compared in constant time. Without configured keys everybody who reaches the
loopback address is tenant `local`; since any web page can reach it too, through its visitor's
browser, such requests must come from this server's own page and name a local host.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable, Mapping
from hashlib import sha256
from urllib.parse import urlsplit

from chatserver.errors import Forbidden, Unauthenticated

LOCAL = "local"
MAX_KEY = 512


class Keys:
    """The configured API keys."""

    def __init__(self, pairs: Iterable[tuple[str, str]], *, host: str = "") -> None:
        """`pairs`: (tenant, key). `host`: the address that is served, a good name for it as well."""
        self._hashed = [(_digest(key), tenant) for tenant, key in pairs]
        self._host = host

    @property
    def required(self) -> bool:
        """Whether a key must be sent."""
        return bool(self._hashed)

    def tenant(self, headers: Mapping[str, str]) -> str:
        """Return the tenant of an HTTP request. Raises Unauthenticated, Forbidden."""
        if not self.required:
            self.check_host(headers)
            check_origin(headers)
            return LOCAL
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthenticated("Missing API key: send the header 'Authorization: Bearer <key>'.")
        return self.tenant_of(token.strip())

    def tenant_of(self, token: str) -> str:
        """Return the tenant of a key. Raises Unauthenticated."""
        if not self.required:
            return LOCAL
        digest = _digest(token[:MAX_KEY])
        found = None
        # Every key is compared, so that the time taken says nothing.
        for known, tenant in self._hashed:
            if hmac.compare_digest(known, digest):
                found = tenant
        if found is None:
            raise Unauthenticated(f"Incorrect API key provided: {_hint(token)}.")
        return found

    def check_host(self, headers: Mapping[str, str]) -> None:
        """Without keys, refuse names that a stranger's DNS could point here. Raises Forbidden."""
        name = (
            (urlsplit(f"//{headers.get('host', '')}").hostname or "")
            if _sane(headers.get("host", ""))
            else ""
        )
        if name in ("localhost", self._host) or name.endswith(".localhost") or _is_address(name):
            return
        raise Forbidden(
            f"Host: expected an address or localhost, got {name[:80]!r}; "
            "to serve other names set CHATSERVER_API_KEYS.",
            code="host_not_allowed",
        )


def check_origin(headers: Mapping[str, str]) -> None:
    """Refuse a browser's request that another site's page makes. Raises Forbidden."""
    origin = headers.get("origin")
    if origin is None:
        return
    netloc = urlsplit(origin).netloc if _sane(origin) else ""
    # A page cannot set these headers itself without asking first, and we never say yes to that.
    if netloc and netloc in (headers.get("host"), headers.get("x-forwarded-host")):
        return
    raise Forbidden(
        f"Origin: expected this server's own, got {origin[:80]!r}.",
        code="origin_not_allowed",
    )


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogateescape")).digest()


def _hint(token: str) -> str:
    return f"{token[:3]}…{token[-2:]}" if len(token) >= 12 else "too short"


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
