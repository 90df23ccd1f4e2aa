"""When the WebSocket closes, and whether the client may come back; the rule itself is in `errors.py`."""

from __future__ import annotations

from typing import NamedTuple


class Closing(NamedTuple):
    """One close code."""

    code: int
    why: str
    come_back: str


CLOSINGS = (
    Closing(1000, "you closed it", "whenever you like"),
    Closing(1007, "a text frame was not UTF-8", "no: the program must change"),
    Closing(1008, "over 1,024 of your frames arrived at once", "no: something is wrong in the program"),
    Closing(1009, "a frame was larger than the protocol allows", "not with that frame"),
    Closing(1011, "a ping was not answered within 20 s", "yes, and attach"),
    Closing(1012, "the server restarts", "yes, and attach"),
    Closing(1013, "you read too slowly, or the store did not answer", "yes, and attach"),
    Closing(4400, "the server failed; its log says more", "yes, and attach"),
    Closing(4408, "nothing was asked or answered for an hour", "yes, when there is something to ask"),
    Closing(4409, "it is in the way of something that runs", "yes, when that has ended"),
    Closing(4429, "the key has used up a limit for now", "yes, after the time in the error event"),
    Closing(
        4500, "32 frames in a row could not be understood, or a binary one", "no: the program must change"
    ),
    Closing(4501, "no key came within 5 s, or it is unknown, expired or revoked", "with another key"),
    Closing(4502, "the key has spent what it may", "next month (UTC), or with another key"),
    Closing(4503, "the key may not do this, or it is a page of an origin that may not call", "no"),
    Closing(4504, "what it was for is not there", "no"),
    Closing(4513, "a frame was over the limit", "not with that frame"),
)
"""Every code that this server closes with."""
