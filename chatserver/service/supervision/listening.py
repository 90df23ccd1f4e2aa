"""The listening socket: bound once, by whoever starts first, and handed to web by its descriptor."""

from __future__ import annotations

import errno
import ipaddress
import socket

from chatserver.errors import StartupError
from chatserver.settings import Settings

BACKLOG = 2048
"""Connections that the kernel keeps while web starts or restarts."""

SEND_BUFFER = 48 * 1024
"""Bytes that the kernel keeps for a client that does not read; it doubles them, for its own accounts. By default
it grows to megabytes, and a thousand stalled readers to gigabytes. With 32 KiB the loopback interface, whose packets
are as large, waits 40 ms for each acknowledgement: 1.6 MB/s in place of 30."""

RECEIVE_BUFFER = 128 * 1024
"""Bytes that the kernel keeps of what a client sends and nobody reads yet; it doubles them, too. By default it grows
to megabytes, for each client that sends much and is then read slowly. Bodies come in at this much a round trip."""

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


def listen(settings: Settings, *, stored_keys: bool = False) -> socket.socket:
    """Return the socket to accept on: the inherited one, or a new one. Raises StartupError.

    `stored_keys`: whether there are keys beside those in the settings; without any, only loopback is listened on.
    """
    if settings.listen_fd is not None:
        try:
            return _narrow(socket.socket(fileno=settings.listen_fd))
        except OSError as error:
            raise StartupError(
                f"CHATSERVER_LISTEN_FD: {settings.listen_fd} is no socket ({error.strerror})"
            ) from None
    family, address = _resolve(settings.host, settings.port)
    if not (settings.api_keys or stored_keys) and is_exposed(settings):
        raise StartupError(
            f"{settings.host} can be reached from other machines, so keys are needed: set "
            "CHATSERVER_API_KEYS=tenant:key, or make one with: chatserver keys create --tenant NAME; "
            "or listen on 127.0.0.1"
        )
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        _narrow(listener).listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise StartupError(_refusal(error, settings.host, settings.port)) from None
    return listener


def is_exposed(settings: Settings) -> bool:
    """Whether other machines can reach the address to listen on. Raises StartupError."""
    _, address = _resolve(settings.host, settings.port)
    return not ipaddress.ip_address(address[0]).is_loopback


def reachable(listener: socket.socket) -> tuple[str, int]:
    """Return a host and port at which this machine reaches `listener`."""
    host, port = listener.getsockname()[:2]
    return _ANY.get(str(host), str(host)), int(port)


def url(listener: socket.socket) -> str:
    """Return the address to open in a browser on this machine."""
    host, port = reachable(listener)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _narrow(listener: socket.socket) -> socket.socket:
    """Bound what the kernel buffers for each connection that is accepted from now on."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    return listener


def _resolve(host: str, port: int) -> tuple[int, tuple[str, int]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise StartupError(f"HOST={host} is neither an address nor a known name") from None
    # localhost is often both ::1 and 127.0.0.1: take what programs try first when they are given no name
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    family, *_, address = found[0]
    return int(family), (str(address[0]), port)


def _refusal(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{host}:{port} is in use by another program; stop it, or choose another port with PORT=…"
    if error.errno == errno.EACCES:
        return f"port {port} is reserved for privileged programs; choose one above 1023 with PORT=…"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"HOST={host} is not an address of this machine"
    return f"cannot listen on {host}:{port}: {error.strerror}"
