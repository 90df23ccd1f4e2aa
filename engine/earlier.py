"""Earlier answers as later prompts have them: what was emitted, less the reasoning that the template drops.

    in the cache    cue │ reasoning </think> │ answer │ end          cue │ answer │ end
    later prompts   open │ answer │ end, as rendered                 the same, id by id

Without reasoning nothing is ever encoded again: what the cache holds stays. With it everything behind the opening has
to be computed anew at its new place, so it is made exactly as the template shows it. What differs is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Protocol

from engine.template import Reasoning, Wrapper
from engine.token_contract import Difference, Shown

OPENING = 16
"""Tokens of an answer within which its reasoning begins, if it does."""


class Codec(Protocol):
    """What of a tokenizer is used here."""

    def segment(self, role: str, text: str) -> tuple[int, ...]: ...  # noqa: D102
    def template_ids(self, text: str) -> tuple[int, ...]: ...  # noqa: D102
    def tail(self, emitted: Sequence[int]) -> tuple[int, ...]: ...  # noqa: D102
    def encode(self, text: str) -> tuple[int, ...]: ...  # noqa: D102
    def decode(self, ids: Sequence[int]) -> str: ...  # noqa: D102


class EarlierAnswers:
    """Shows answers of one template. `wrapper`: around an earlier answer; `cue`: what asks for a new one.

    `marks`: special tokens that a model writes and that text does not show: those of its calls.
    """

    def __init__(self, codec: Codec, wrapper: Wrapper, cue: str, marks: Mapping[int, str]) -> None:
        self._codec = codec
        self._wrapper = wrapper
        self._marks = marks
        self._close = codec.template_ids(wrapper.close)
        self._cue = codec.template_ids(cue)
        self._open = codec.template_ids(wrapper.open)
        self._opens_reasoning = bool(wrapper.reasoning) and cue.rstrip().endswith(wrapper.reasoning.start)
        self._end: tuple[int, ...] = codec.template_ids(wrapper.reasoning.end) if wrapper.reasoning else ()

    def shown(self, emitted: Sequence[int]) -> Shown:
        """Return an answer as later prompts have it; see `engine.token_contract.Tokenizer.shown`."""
        tail = self._codec.tail(emitted)
        written = (*self._cue, *emitted, *tail)
        body = tuple(emitted[: self._length(emitted, tail)])
        end = self._reasoning_end(body)
        # the mark before the answer proper makes the template strip what it strips behind it
        mark = self._wrapper.reasoning.end if self._wrapper.reasoning and end else ""
        rendered = self._rendered(mark, body[end:])
        if rendered == written:
            return Shown(written, end)
        if self._wrapper.reasoning is not None and (end or self._cue != self._open):
            return Shown(rendered, end, _difference("reasoning", written, rendered, rewritten=True))
        return Shown(written, end, _difference(self._why(body), written, rendered, rewritten=False))

    def _rendered(self, mark: str, answer: Sequence[int]) -> tuple[int, ...]:
        """Return the answer proper as the template shows it: its text encoded anew, the marks of calls as they are."""
        if self._marks.keys().isdisjoint(answer):
            return self._codec.segment("assistant", mark + self._codec.decode(answer))
        runs = [(own, list(run)) for own, run in groupby(answer, self._marks.__contains__)]
        texts = [
            "".join(self._marks[i] for i in run) if own else self._codec.decode(run) for own, run in runs
        ]
        whole = "".join(texts)
        shown = self._wrapper.strip(mark + whole)
        start = whole.index(shown)  # only white space at the ends is stripped
        texts[0], stripped = texts[0][start:], len(whole) - start - len(shown)
        texts[-1] = texts[-1][: len(texts[-1]) - stripped]
        ids = [run if own else self._codec.encode(text) for (own, run), text in zip(runs, texts, strict=True)]
        return (*self._open, *(i for part in ids for i in part), *self._close)

    def _length(self, emitted: Sequence[int], tail: Sequence[int]) -> int:
        """Return how many tokens there are before the end token, if that was emitted."""
        return len(emitted) - (len(tail) < len(self._codec.tail(())))

    def _reasoning_end(self, body: tuple[int, ...]) -> int:
        """Return how many of the first tokens are reasoning, its end included; all of them if it does not end.

        As SGLang's parsers: it begins with the answer, by the cue or by the model's own first word, and ends
        with the first end mark.
        """
        reasoning = self._wrapper.reasoning
        if reasoning is None or not (self._opens_reasoning or self._begins(body, reasoning)):
            return 0
        first, size = self._end[0], len(self._end)
        for at, token in enumerate(body):
            if token == first and body[at : at + size] == self._end:
                return at + size
        return self._end_in_text(body, reasoning)

    def _begins(self, body: tuple[int, ...], reasoning: Reasoning) -> bool:
        start = self._codec.template_ids(reasoning.start)
        if any(body[at : at + len(start)] == start for at in range(OPENING)):
            return True
        return self._codec.decode(body[:OPENING]).lstrip().startswith(reasoning.start)

    def _end_in_text(self, body: tuple[int, ...], reasoning: Reasoning) -> int:
        """Find an end mark that was written in other tokens than the template's: the shortest part that has it."""
        if reasoning.end not in self._codec.decode(body):
            return len(body)
        low, high = 0, len(body)
        while low < high:
            middle = (low + high) // 2
            if reasoning.end in self._codec.decode(body[:middle]):
                high = middle
            else:
                low = middle + 1
        return low

    def _why(self, body: tuple[int, ...]) -> str:
        text = self._codec.decode(body)
        if self._wrapper.strip(text) != text:
            return "spaces"
        silent = "\ufffd" in text or any(not self._codec.decode((token,)) for token in body)
        return "text" if silent else "split"


def _difference(why: str, written: Sequence[int], shown: Sequence[int], *, rewritten: bool) -> Difference:
    at = next(
        (i for i, (a, b) in enumerate(zip(written, shown, strict=False)) if a != b),
        min(len(written), len(shown)),
    )
    return Difference(why, at, len(written), len(shown), rewritten)
