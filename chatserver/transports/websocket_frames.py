"""Frames of a WebSocket: those of the `websockets` package, with what it lacks, and what we write without it."""

from __future__ import annotations

import logging

from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

_QUIET = logging.getLogger(__name__)
"""For the package: not told of each socket that opens, which is no more than an access log. HTTP has none of either."""
_QUIET.setLevel(logging.WARNING)


class Frames(ServerProtocol):
    """The protocol of `websockets` behind the handshake.

    With RFC 6455, section 5.4: a close frame may come amid a fragmented message.
    """

    def __init__(self, max_size: int) -> None:
        """Take messages of up to `max_size` bytes."""
        super().__init__(state=State.OPEN, max_size=max_size, logger=_QUIET)

    def recv_frame(self, frame: Frame) -> None:
        """Take a frame."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)


def text_head(length: int) -> bytes:
    """Return what stands before a whole text frame of a server: RFC 6455, section 5.2; there are no extensions."""
    if length < 126:
        return b"\x81%c" % length
    return b"\x81\x7e" + length.to_bytes(2) if length < 2**16 else b"\x81\x7f" + length.to_bytes(8)
