"""Which tokens' log-probabilities belong to which piece of an answer's text."""

from __future__ import annotations

from collections.abc import Iterable

from chatserver.domain.logprob import LEAST, Logprob
from engine.answers import Piece, PieceKind
from engine.contract import TokenLogprob
from engine.token_contract import Tokenizer


def shown(tokenizer: Tokenizer, token: int, logprob: TokenLogprob) -> Logprob:
    """Return an engine's log-probability with tokens in place of ids: who reads the tape has no tokenizer."""
    return Logprob(
        _name(tokenizer, token),
        max(LEAST, logprob.value),
        tuple((_name(tokenizer, likely), max(LEAST, value)) for likely, value in logprob.likeliest),
    )


def within(logprobs: Iterable[Logprob], room: int) -> Iterable[Logprob]:
    """Yield log-probabilities while they and their alternatives are at most `room`."""
    for logprob in logprobs:
        room -= logprob.count
        if room < 0:
            return
        yield logprob


class TextLogprobs:
    """Feed tokens, take what each piece of text is made of.

    A splitter holds back what may be the beginning of a mark, and drops marks and spaces around them. So a token counts
    as text only once a piece ends with it or behind it, and what is older than the piece's own text never does:

        tokens   </think>  \n\n  He  llo        <|im_end|>
        pieces                   He  llo
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[tuple[str, Logprob | None]] = []

    def feed(self, text: str, logprob: Logprob | None) -> None:
        """Take a token and the text that it completed. What is no text at all (an end token) is left out."""
        if text or (logprob and logprob.token):
            self._waiting.append((text, logprob))

    def take(self, piece: Piece) -> tuple[Logprob, ...]:
        """Return those of the tokens that a piece consists of, () if it is no text."""
        if piece.kind is not PieceKind.TEXT:
            del self._waiting[:-1]  # the newest one may have text for a part that comes next
            return ()
        if not piece.text:
            return ()
        left, at = len(piece.text), len(self._waiting)
        # a token without text is the beginning of a character that a later one completed
        while at and (left > 0 or not self._waiting[at - 1][0]):
            at -= 1
            left -= len(self._waiting[at][0])
        found = self._waiting[at:]
        self._waiting.clear()
        return tuple(logprob for _, logprob in found if logprob is not None)


def _name(tokenizer: Tokenizer, token: int) -> str:
    return tokenizer.raw(token).decode("latin-1")
