"""One request of the scripted engine: what it emits, token by token, and when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from engine.contract import Chunk, FinishReason, GenerateRequest, Sampling, TokenLogprob
from engine.decoding_bytes import ByteDecoder
from engine.scripted_plan import planned
from engine.scripted_script import Script
from engine.scripted_tokenizer import BYTES, END, END_THINK, IDS, VOCABULARY, ScriptedTokenizer


@dataclass(slots=True, eq=False)
class ScriptedRequest:
    """One request. `sampling` None: a prefill. `unread`: emitted and not yet yielded, at most max_tokens."""

    request_id: str
    ids: tuple[int, ...]
    salt: str
    sampling: Sampling | None
    seed: int
    first_due: float = 0.0
    prefilled: bool = False
    cached: int = 0
    path: list[int] = field(default_factory=list)
    """Of its prompt in the cache, once it is prefilled."""
    answer: list[int] = field(default_factory=list)
    unread: list[int] = field(default_factory=list)
    finish: FinishReason | None = None
    error: str = ""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    script: Script | None = None
    decoder: ByteDecoder = field(default_factory=lambda: ByteDecoder(BYTES))
    recent: str = ""
    plan: tuple[int, ...] = ()

    @classmethod
    def of(cls, request: GenerateRequest) -> ScriptedRequest:
        """Return the state of a new request. Without a seed it is 0: answers repeat."""
        sampling = request.sampling
        seed = sampling.seed or 0
        running = cls(
            request.request_id, request.ids, request.salt, sampling, seed if sampling.temperature else 0
        )
        running.plan = _planned(request)
        return running

    def write(self) -> FinishReason | None:
        """Emit one token; return why the answer ends with it, if it does."""
        assert self.sampling is not None
        if self.script is None:
            self.script = Script(self.ids, self.seed)
        if self.plan and not self.script.thinks:
            token, self.plan = self.plan[0], self.plan[1:]
        else:
            token = self.script.next(may_end=not self.sampling.ignore_end)
        self.answer.append(token)
        self.unread.append(token)
        if token == END or self._stops(token, self.sampling.stop):
            return FinishReason.STOP
        return FinishReason.LENGTH if len(self.answer) >= self.sampling.max_tokens else None

    def _stops(self, token: int, stops: Iterable[str]) -> bool:
        if not any(stops):
            return False
        longest = max(map(len, stops))
        piece = self.decoder.push(token)
        self.recent = self.recent[-longest:] + piece
        return any(stop in self.recent for stop in stops)


def _planned(request: GenerateRequest) -> tuple[int, ...]:
    """Return the ids that are left of an answer that is planned, () if it is free."""
    if not request.form.calls and not request.form.schema:
        return ()
    tokenizer = ScriptedTokenizer()
    start = len(request.ids) - request.emitted
    plan = planned(tokenizer.decode(request.ids[:start]), request.form)
    if plan is None:
        return ()
    emitted, end = request.ids[start:], IDS[END_THINK]
    said = len(emitted) - (emitted.index(end) + 1 if end in emitted else 0)
    return (*tokenizer.encode(plan), END)[said:]


def with_logprobs(chunk: Chunk, asked: int | None) -> Chunk:
    """Return `chunk` with log-probabilities if they were asked for: a pure function of each token."""
    if asked is None:
        return chunk
    return replace(chunk, logprobs=tuple(logprob(token, asked) for token in chunk.ids))


def logprob(token: int, asked: int) -> TokenLogprob:
    """Return what a token's would be if those with the next ids were its rivals, each less likely by e."""
    own = -0.5 - (token % 7) / 8
    return TokenLogprob(own, tuple(((token + i) % VOCABULARY, own - i) for i in range(asked)))
