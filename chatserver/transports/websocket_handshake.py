"""The opening handshake of a WebSocket (RFC 6455, section 4.2), from a head that HTTP has parsed already. Pure.

The `websockets` package parses frames, and refuses what is no handshake, in its words. What nearly all clients send is
seen to be sound here: handing its text to the package, which parses it again, took as long as beginning an answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from starlette.types import Scope
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.utils import accept_key

_KEY = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")
"""16 bytes in base64."""
_PLAIN = (b"upgrade", b"connection", b"sec-websocket-key", b"sec-websocket-version")
"""Headers that a handshake has once each."""
_PROTOCOL = b"sec-websocket-protocol"
_SINGULAR = frozenset((*_PLAIN, b"origin", _PROTOCOL))
_SCHEMES = {"http": "ws", "https": "wss"}

Pairs = Sequence[tuple[bytes, bytes]]


def answer_to(method: str, version: str, url: bytes, headers: Pairs) -> str | Response:
    """Return the value of Sec-WebSocket-Accept, or the answer that refuses. Names of headers are in lower case."""
    key = _sound_key(headers) if method == "GET" and version == "1.1" else None
    if key is not None:
        return accept_key(key.decode())
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    request = Request(url.decode("latin-1"), Headers(pairs), method, f"HTTP/{version}")
    answer = ServerProtocol().accept(request)
    return answer.headers["Sec-WebSocket-Accept"] if answer.status_code == 101 else answer


def refusal(status: int) -> bytes:
    """Return an answer that refuses, in HTTP's words."""
    return ServerProtocol().reject(status, HTTPStatus(status).phrase).serialize()


def head_of(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the head of an answer after which the connection is closed."""
    lines = [b"HTTP/1.1 %d %b" % (status, HTTPStatus(status).phrase.encode())]
    lines += [b"%b: %b" % pair for pair in headers]
    return b"\r\n".join((*lines, b"connection: close", b"", b""))


def switching(accept: str, subprotocol: str | None, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the answer after which frames follow."""
    lines = [
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + accept.encode(),
        *(b"%b: %b" % pair for pair in headers),
    ]
    if subprotocol is not None:
        lines.append(b"Sec-WebSocket-Protocol: " + subprotocol.encode("latin-1"))
    return b"\r\n".join((*lines, b"", b""))


def scope_of(http: dict[str, Any], url: bytes) -> Scope:
    """Return the scope of a WebSocket whose handshake has that HTTP scope, and that ASCII target."""
    path, _, query = url.partition(b"?")
    offered = [value.decode("latin-1") for name, value in http["headers"] if name == _PROTOCOL]
    root: str = http["root_path"]
    return {
        **http,
        "type": "websocket",
        "scheme": _SCHEMES[http["scheme"]],
        "path": root + unquote(path.decode()),
        "raw_path": root.encode() + path,
        "query_string": query,
        "extensions": {"websocket.http.response": {}},
        "subprotocols": [name.strip() for value in offered for name in value.split(",")],
    }


def _sound_key(headers: Pairs) -> bytes | None:
    """Return the key of a handshake that is sound at a glance, None if more must be looked at."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _SINGULAR:
            if name in found or name == _PROTOCOL:
                return None
            found[name] = value
    upgrade, connection, key, version = (found.get(name, b"") for name in _PLAIN)
    if version != b"13" or upgrade.lower() != b"websocket" or not _KEY.fullmatch(key):
        return None
    options = connection.lower()
    return key if options == b"upgrade" or b"upgrade" in options.replace(b" ", b"").split(b",") else None
