"""The engine contract: what an engine must do, whoever runs behind it.

Two engines keep it: `engine.sglang_engine.SglangEngine` (the real one) and
`engine.scripted.ScriptedEngine` (for tests and load). `tests/engine/test_contract.py`
runs the same suite on both. `engine.token_contract` is the tokenizer's part of it.

Vocabulary: a *request* is one run of the scheduler; a *prompt* is a sequence of token ids;
a *chunk* is what one scheduler step added. Ids are the truth, text is derived from them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from engine.answers import FREE, Form, Splitter
from engine.experts import ExpertLoad
from engine.token_contract import Tokenizer

REQUEST_ID_LENGTH = 32
"""Length of every request id: SGLang aborts by id *prefix*, so ids of one length never match each other."""

MOST_LOGPROBS = 20
"""Likeliest tokens that a request may ask for at each place of its answer."""


class EngineError(Exception):
    """An engine refused or lost a request. Subclasses say which; `str(error)` says what to do."""


class RequestRefused(EngineError):
    """The request can never run as it is (too long, ids out of range, a form that the model has not).

    `field`: of the form, what is wrong; None if it is something else.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class EngineBusy(EngineError):
    """The engine's own queue is full; the same request may succeed later."""


class EngineLost(EngineError):
    """The engine died or was closed with this request in flight."""


class EngineStalled(EngineError):
    """This request was given no token for too long and was ended; the engine and other requests go on."""


class ModelUnusable(EngineError):
    """The model folder cannot be served; the message says which file or setting is wrong."""


class StartRefused(EngineError):
    """The schedulers cannot start with these settings on this machine; the next start would end in the same way."""


class FinishReason(StrEnum):
    """Why a request ended."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What an engine serves.

    `context`: window in tokens (prompt + answer). `kv_tokens`: capacity of the KV pool in tokens.
    `page`: KV page size in tokens. `end_ids`: ids that end an answer. `template_hash`: identifies
    tokenizer + chat template; ids made under another hash must be made again. `temperature`, `top_p`,
    `top_k`: what the model's makers sample with when a request does not say. `thinking_switch`: whether `Form.thinking`
    may be True as well as False.
    """

    name: str
    aliases: tuple[str, ...]
    context: int
    kv_tokens: int
    page: int
    vocab_size: int
    end_ids: frozenset[int]
    template_hash: str
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    thinking_switch: bool = False


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens. `max_tokens`: bound on the answer in tokens, ≥ 1. `seed`: None = not fixed."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    ignore_end: bool = False
    min_p: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One request. `request_id`: exactly REQUEST_ID_LENGTH characters. `salt` separates tenants' KV.

    `logprobs`: None = no log-probabilities; n = each token's own, and the n likeliest tokens at its place
    (0 to MOST_LOGPROBS). `form`: what the answer is made of; `emitted`: how many of the last ids are its own beginning.
    """

    request_id: str
    ids: tuple[int, ...]
    sampling: Sampling
    salt: str = ""
    logprobs: int | None = None
    form: Form = FREE
    emitted: int = 0


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely a token was. `value`: natural logarithm of its probability, after temperature, before top-k and top-p.

    `likeliest`: (id, log-probability) of the likeliest tokens at its place, likeliest first, as many as were asked for
    or as the engine knows.
    """

    value: float
    likeliest: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one scheduler step added.

    `ids`: the new tokens in order, an end token included. `cached`: prompt tokens served from the
    KV cache (the same on every chunk of a request). `finish` is set on the last chunk only, whose
    `ids` may be empty. `logprobs`: one for each of `ids` if the request asked for them, else empty.
    """

    ids: tuple[int, ...]
    cached: int
    finish: FinishReason | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Health:
    """A snapshot. Counts of the KV pool in tokens; cached prefixes that can be evicted are not used.

        kv_tokens = kv_used + kv_cached + free + kv_leaked

    `kv_cached`, `kv_leaked`: as of the last time that nothing ran. Leaked tokens belong to no request and to no
    prefix: only a restart brings them back. `lost`: for good, the engine must be started anew.
    """

    ok: bool
    running: int
    queued: int
    kv_used: int
    kv_tokens: int
    detail: str = ""
    lost: bool = False
    kv_cached: int = 0
    kv_leaked: int = 0


class Engine(Protocol):
    """One model behind one scheduler.

    Cancelling the consumer of `generate` (closing the iterator) aborts the request. All methods
    must be called from the event loop that called `start`.
    """

    @property
    def card(self) -> ModelCard:
        """What is served; valid after `start`."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer; valid after `start`."""
        ...

    async def start(self, report: Callable[[str], None]) -> None:
        """Load the model. `report` gets one short line for each phase. Raises ModelUnusable, EngineError."""
        ...

    def splitter(self, form: Form) -> Splitter | None:
        """Return what takes an answer of this form apart, None if it is all text. Feed it what `decoder` returns.

        Raises RequestRefused: the model has not this form.
        """
        ...

    def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Run one request, yielding a chunk per scheduler step; the last has `finish`.

        Feeding `ids + answer[:k]` continues a greedy or seeded answer at its k-th token: the ground
        for continuing after a crash. Raises RequestRefused, EngineBusy, EngineStalled, EngineLost.
        """
        ...

    async def abort(self, request_id: str) -> None:
        """Ask the scheduler to drop a request within one step. Unknown ids are ignored.

        The iterator of `generate` still yields its last chunk with finish ABORT.
        """
        ...

    async def prefill(self, request_id: str, ids: Sequence[int], salt: str = "") -> int:
        """Put a prefix into the KV cache without generating; return how many tokens were cached already."""
        ...

    async def release(self, ids: Sequence[int], keep: int = 0, salt: str = "") -> int:
        """Free the cached KV of all sequences that begin with `ids[:keep + 1]`, from token `keep` on.

        Returns how many tokens were freed, 0 if nothing was there. `keep`: how many of the first tokens others
        begin with, too. What a running request uses stays. Raises RequestRefused (`keep` is not in 0 … len(ids)),
        EngineLost, EngineError (no answer in time, or a cache with copies that cannot be freed).
        """
        ...

    async def health(self) -> Health:
        """Return a snapshot; never raises. `ok` is False when the scheduler does not answer."""
        ...

    def expert_load(self) -> ExpertLoad | None:
        """Return which experts and ranks did the work since the start, None for a model without experts.

        Of this machine's ranks, where the engine spans several. Never raises after `start`.
        """
        ...

    async def close(self) -> None:
        """Stop the scheduler and free everything. Idempotent."""
        ...
