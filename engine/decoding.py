"""From token ids to text, one piece an id.

Byte-level vocabularies (GPT-2's scheme: Llama 3, DeepSeek, Qwen, SmolLM) have a table here, id to
bytes, and are decoded by `engine.decoding_bytes`. Other vocabularies go
through the stream decoder of the `tokenizers` library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import tokenizers
from tokenizers.decoders import DecodeStream

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_SHIFTED = [byte for byte in range(256) if byte not in _PRINTABLE]
_BYTE_OF = {chr(byte): byte for byte in _PRINTABLE} | {chr(256 + i): byte for i, byte in enumerate(_SHIFTED)}
"""GPT-2's alphabet: each byte has a printable character that stands for it in the vocabulary."""


class ByteTable:
    """id -> bytes of a byte-level vocabulary, filled as ids are asked for."""

    def __init__(
        self, token_of: Callable[[int], str | None], added: Mapping[int, str], specials: frozenset[int]
    ) -> None:
        """`added`: literal text of added tokens. `specials`: ids without text."""
        self._token_of = token_of
        self._known = {token: text.encode() for token, text in added.items()}
        self._known.update(dict.fromkeys(specials, b""))

    def __getitem__(self, token: int) -> bytes:
        found = self._known.get(token)
        if found is None:
            text = self._token_of(token) or ""
            # A character outside of the alphabet stands for itself.
            found = b"".join(bytes((_BYTE_OF[c],)) if c in _BYTE_OF else c.encode() for c in text)
            self._known[token] = found
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`; unfinished characters become U+FFFD."""
        return b"".join([self[token] for token in ids]).decode("utf-8", "replace")


class StreamDecoder:
    """`engine.token_contract.Decoder` for any vocabulary that `tokenizers` can decode."""

    __slots__ = ("_emitted", "_ids", "_silent", "_skip", "_stream", "_tokenizer")

    def __init__(self, tokenizer: tokenizers.Tokenizer, silent: frozenset[int] | None = None) -> None:
        """`silent`: ids without text, None = the special tokens."""
        self._tokenizer = tokenizer
        self._silent = silent or frozenset()
        self._skip = silent is None
        self._stream = DecodeStream(skip_special_tokens=self._skip)
        self._ids: list[int] = []
        self._emitted = 0

    def push(self, token: int) -> str:
        """Return the text that `token` completes."""
        if token in self._silent:
            return ""
        self._ids.append(token)
        piece = self._stream.step(self._tokenizer, token) or ""
        self._emitted += len(piece)
        return piece

    def flush(self) -> str:
        """Return what is held back, unfinished bytes as U+FFFD."""
        return self._tokenizer.decode(self._ids, skip_special_tokens=self._skip)[self._emitted :]
