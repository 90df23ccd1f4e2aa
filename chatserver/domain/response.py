"""Responses: one answer, its parameters, its state and its account.

queued ──> in_progress ──> completed | incomplete | cancelled | failed
   └──────────────────────────────────────> cancelled | failed
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from chatserver.domain.item import Item, Message
from chatserver.domain.ledger import Ledger
from chatserver.domain.logprob import Logprob
from chatserver.domain.money import Price


class Status(StrEnum):
    """OpenAI's words for the state of a response."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self not in (Status.QUEUED, Status.IN_PROGRESS)


class Finish(StrEnum):
    """Why the answer ended. STOP: the model ended it or a stop string matched; STOPPED: a user stopped it."""

    STOP = "stop"
    LENGTH = "length"
    STOPPED = "stopped"
    ERROR = "error"


class Truncation(StrEnum):
    """What to do when the prompt does not fit the window."""

    DISABLED = "disabled"
    AUTO = "auto"
    RETENTION_RATIO = "retention_ratio"


@dataclass(frozen=True, slots=True)
class Params:
    """What the client asked for, checked.

    `temperature`, `top_p`, `top_k`: None = the model's own default, filled in when the model is known.
    `max_output_tokens`: None = what is left of the window. `retention_ratio`: share of the window
    kept by a cut, for Truncation.RETENTION_RATIO (and AUTO, with the default); `post_instructions`: tokens that may
    follow the instructions; `cut_inside`: whether one too long message may lose its middle; `compaction`: whether
    what a cut drops is summarised. `stop`: at most 4 strings.
    `messages`: the whole prompt for stateless requests, () for conversations.
    `thinking`: whether the model reasons first, None = as it does by itself. `tools`: JSON list of what it may call,
    "" for none; `tool_choice`: auto, none, required, or the name of one. `schema`: JSON Schema of the text or "".
    """

    model: str
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float = 0.0
    """Share of the likeliest token's probability below which tokens are left out."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(token id, what is added to its logit)."""
    seed: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    """What the logits of tokens that the answer has already are divided by (multiplied, below 0)."""
    ignore_end: bool = False
    truncation: Truncation = Truncation.DISABLED
    retention_ratio: float = 0.7
    post_instructions: int | None = None
    cut_inside: bool = False
    compaction: bool = False
    messages: tuple[Message, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    thinking: bool | None = None
    tools: str = ""
    tool_choice: str = "auto"
    parallel_calls: bool = True
    schema: str = ""
    echo: dict[str, object] = field(default_factory=dict)
    """Request fields that the response object repeats as they were sent (JSON values)."""
    progress: bool = False
    """Have the tape say when the prompt is computed (`tape.Prefilled`)."""
    logprobs: int | None = None
    """Keep each token's log-probability and those of so many likeliest ones at its place; None = keep none."""
    tell_reasoning: bool = False
    """Chat Completions: have `reasoning_content` in every message and delta, null where there is none."""
    prefix: str = ""
    """Text that the answer goes on from; it is part of the prompt, not of the answer."""
    replay_of: str | None = None
    """Send what that response was sent, to the id; only the command line asks for it."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens. `cached`: prompt tokens that came from the KV cache (hit); prompt − cached is the miss."""

    prompt: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations in milliseconds as the engine role saw them; `ttft_ms` from acceptance to the first token.

    `engine_ttft_ms`: from handing the prompt to the engine to its first token.
    """

    queued_ms: float = 0.0
    engine_ttft_ms: float = 0.0
    ttft_ms: float = 0.0
    tokens_per_second: float = 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a response failed, as an OpenAI error: `status` is the HTTP status a not yet started answer gets."""

    code: str
    message: str
    param: str | None = None
    status: int = 500
    kind: str = "server_error"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a response ended: all that its last event and its stored form need.

    `logprobs`: of each part of the item, () if they were not asked for. They are kept with the response and not in the
    item, which is read with its whole branch; at most `logprob.KEPT` of them.
    """

    status: Status
    finish: Finish
    usage: Usage
    item: Item | None = None
    timing: Timing = Timing()
    ledger: Ledger | None = None
    failure: Failure | None = None
    completed_at: int = 0
    logprobs: tuple[tuple[Logprob, ...], ...] = ()

    def logprobs_of(self, part: int) -> tuple[Logprob, ...]:
        """Return those of one part of the item."""
        return self.logprobs[part] if part < len(self.logprobs) else ()


@dataclass(frozen=True, slots=True)
class Response:
    """A response as stored. `parent`: the item that the input was appended to; `inputs`: the input items' ids.

    `continues`: an incomplete answer's item; this answer begins with its text, to the id. `siblings`: the responses
    that answer the same input beside this one; `beside`: the one that this one is a sibling of.
    `conversation` is None for stateless answers. `claim` counts how often an engine took the job:
    0 = never; writes under an older claim are refused. `stored`: False = forgotten some time after its end;
    `fleeting`: its client wants nothing of it stored, so it goes as soon as its readers can have read the end.
    """

    id: str
    tenant: str
    params: Params
    created_at: int
    status: Status = Status.QUEUED
    conversation: str | None = None
    parent: str | None = None
    inputs: tuple[str, ...] = ()
    previous: str | None = None
    continues: str | None = None
    siblings: tuple[str, ...] = ()
    beside: str | None = None
    accepted_at: float = 0.0
    """Unix seconds, with fractions, at which the web role took the request: queueing is counted from here."""
    item_id: str = ""
    """Id that the answer's item will have; fixed at the start so that every event can name it."""
    stored: bool = True
    fleeting: bool = False
    claim: int = 0
    owner: str | None = None
    stop_asked: bool = False
    outcome: Outcome | None = None
    payer: str = ""
    """Id of the API key that pays for it; "" is nobody, and nothing is counted."""
    price: Price | None = None
    """What the model cost when the response was accepted; None: it has no price."""

    @property
    def answers(self) -> str | None:
        """The item that the answer stands under, None if it is the first of its conversation."""
        return self.inputs[-1] if self.inputs else self.parent

    def billed(self, usage: Usage) -> Usage:
        """Return what its payer pays for: the prompt of several answers is on the first one's bill."""
        return replace(usage, prompt=0, cached=0) if self.beside else usage

    def cost(self, usage: Usage) -> int | None:
        """Return what it costs in picos, None without a price."""
        if self.price is None:
            return None
        paid = self.billed(usage)
        return self.price.cost(prompt=paid.prompt, cached=paid.cached, output=paid.output)
