"""Responses: one answer, its parameters, its state and its account.

queued ──> in_progress ──> completed | incomplete | cancelled | failed
   └──────────────────────────────────────> cancelled | failed
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import accumulate, pairwise

from chatserver.domain.item import Item, Message
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
class Trim:
    """`count` tokens of an item that are not sent, from its token `first` on."""

    item_id: str
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Where an answer's ids, as they were emitted, leave what the template shows of it.

    `why`: reasoning (the template drops it), spaces (it strips them), split (the same text in other tokens), text
    (the text does not say all that was emitted). `at`: the first token that differs, counted from the answer's
    opening. `emitted`, `rendered`: tokens of both. `rewritten`: later prompts have what is rendered, else what was
    emitted, which the cache has.
    """

    why: str
    at: int
    emitted: int
    rendered: int
    rewritten: bool


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the model saw: `kept` and `dropped` item ids together are the whole branch.

        branch    0 … pinned − 1 │ pinned … start − 1 │ start … items − 1
                  kept           │ dropped            │ kept

        prompt    ├─ head ─┤├─ lengths₀ ─┤├─ lengths₁ ─┤ … ├─ cue ─┤
                  the first item, if the head stands for it; then what was kept

    `window`, `sent`, `reserve`, `head` in tokens. `cut`: first kept item after the pinned ones, None if nothing was
    dropped; `next_cut`: the same for the turn that follows, chosen when this one ended. `prompt_hash`: of the ids
    that were sent. `carried`: how many of them are the beginning of the answer, written by an earlier response.
    `lengths`: tokens of each kept item behind the head, as sent; `trim`: what is missing inside one of them.
    `rebuilt`: items whose ids were of another tokenizer or template and were made again for this turn.
    `summary`: the item that stands for what was dropped, `summary_tokens` long, the end of `head`.
    `difference`: of the answer, None if the template would show the very ids that were emitted.

    The lists of items are not stored with a response, which would take space with the square of a conversation's
    length: the three numbers are, and `of_branch` makes the lists from them again. `lengths` is bounded by the window.
    """

    window: int
    sent: int
    reserve: int
    policy: str
    kept: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    cut: str | None = None
    template_hash: str = ""
    carried: int = 0
    next_cut: str | None = None
    pinned: int = 0
    start: int = 0
    items: int = 0
    prompt_hash: str = ""
    head: int = 0
    lengths: tuple[int, ...] = ()
    trim: Trim | None = None
    rebuilt: int = 0
    difference: Difference | None = None
    summary: str | None = None
    summary_tokens: int = 0

    def of_branch(self, path: Sequence[str]) -> Ledger:
        """Return the ledger with its lists. `path`: item ids from the root to the newest input."""
        return replace(
            self,
            kept=(*path[: self.pinned], *path[self.start : self.items]),
            dropped=tuple(path[self.pinned : self.start]),
        )

    @property
    def bare(self) -> Ledger:
        """The ledger without its lists, as it is stored."""
        return replace(self, kept=(), dropped=())

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Where in the prompt each item of `kept` lies: (first token, one past the last)."""
        ends = tuple(accumulate(self.lengths, initial=self.head))
        leading = ((0, self.head),) * (len(self.kept) - len(self.lengths))
        return (*leading, *pairwise(ends))


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
