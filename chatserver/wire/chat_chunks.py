"""Chat Completions as a stream: the records of answers as `data:` lines."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import orjson

from chatserver.domain.item import PartKind
from chatserver.domain.response import Outcome, Response
from chatserver.domain.tape import Delta, Ended, ItemOpened, Prefilled, Record, Started, Waiting
from chatserver.wire.chat_completions import finish_reason, usage_told
from chatserver.wire.errors import from_failure
from chatserver.wire.logprobs import choice_logprobs
from chatserver.wire.response_events import encode_text, queue_comment
from chatserver.wire.response_objects import timing_object

DONE = b"data: [DONE]\n\n"


class Chunks:
    """Encodes the records of one answer as `data:` lines. `index`: of its choice; what ends the stream is `last`'s.

    Where there is reasoning, or it was asked for, each delta has `reasoning_content` and `content`, one of them null:
    who reads DeepSeek's streams looks at the first to know whether to take the second.
    """

    __slots__ = (
        "_calls",
        "_head",
        "_heads",
        "_include_usage",
        "_index",
        "_last",
        "_opened",
        "_plain_tail",
        "_progress",
        "_response",
        "_shared",
        "_tail",
        "_told",
    )

    def __init__(self, response: Response, *, include_usage: bool, index: int = 0, last: bool = True) -> None:
        self._include_usage = include_usage
        self._index = index
        self._progress = response.params.progress and index == 0
        self._last = last
        self._opened = False
        self._shared = {
            "id": response.id,
            "object": "chat.completion.chunk",
            "created": response.created_at,
            "model": response.params.model,
            "service_tier": "default",
            "system_fingerprint": None,
        }
        self._response = response
        shared = orjson.dumps(self._shared)[:-1]
        # A delta is these bytes around its text.
        self._head = b'data: %b,"choices":[{"index":%d,"delta":{' % (shared, index)
        self._told: dict[str, Any] = {}
        self._heads = {PartKind.TEXT: self._head + b'"content":'}
        if response.params.tell_reasoning:
            self._tell_reasoning()
        self._tail = b',"finish_reason":null}]%b}\n\n' % (b',"usage":null' if include_usage else b"")
        self._plain_tail = b'},"logprobs":null' + self._tail
        self._calls: dict[int, int] = {}

    def encode(self, record: Record) -> bytes:
        """Return the lines of a record, b"" if it has none."""
        body = record.body
        if type(body) is Delta:
            return self._delta(body)
        if isinstance(body, ItemOpened):
            if body.kind is PartKind.REASONING:
                self._tell_reasoning()
            return self._open() + (self._call(body) if body.kind is PartKind.CALL else b"")
        if isinstance(body, Ended):
            return self._end(body.outcome)
        if isinstance(body, Waiting):
            return queue_comment(body)
        if self._progress and isinstance(body, Started | Prefilled):
            return self._prompt_progress(body)
        return b""

    def _prompt_progress(self, body: Started | Prefilled) -> bytes:
        """Return how far the prompt is, in tokens: nothing of it, or all of it."""
        done = body if isinstance(body, Prefilled) else Prefilled(body.prompt, 0, 0.0)
        progress = {
            "total": done.prompt,
            "cache": done.cached,
            "processed": done.prompt if done is body else 0,
            "time_ms": done.ms,
        }
        usage = {"usage": None} if self._include_usage else {}
        chunk = {**self._shared, "choices": [], "prompt_progress": progress, **usage}
        return b"data: %b\n\n" % orjson.dumps(chunk)

    def _delta(self, body: Delta) -> bytes:
        text = body.text
        if not text:
            return b""
        if body.kind is PartKind.CALL:
            call = {"index": self._calls[body.index], "function": {"arguments": text}}
            return self._chunk({"tool_calls": [call]}, None)
        tail = self._plain_tail
        if body.logprobs:
            likely = choice_logprobs(chain.from_iterable(body.logprobs))
            tail = b'},"logprobs":%b%b' % (orjson.dumps(likely), self._tail)
        return b"%b%b%b" % (self._heads[body.kind], encode_text(text), tail)

    def _call(self, body: ItemOpened) -> bytes:
        """Return the beginning of a call: clients count calls, not parts."""
        index = self._calls.setdefault(body.index, len(self._calls))
        function = {"name": body.name, "arguments": ""}
        call = {"index": index, "id": body.call_id, "type": "function", "function": function}
        return self._chunk({"tool_calls": [call]}, None)

    def _tell_reasoning(self) -> None:
        self._told = {"content": None, "reasoning_content": None}
        self._heads = {
            PartKind.TEXT: self._head + b'"reasoning_content":null,"content":',
            PartKind.REASONING: self._head + b'"content":null,"reasoning_content":',
        }

    def _open(self) -> bytes:
        if self._opened:
            return b""
        self._opened = True
        return self._chunk({"role": "assistant", "content": "", "refusal": None}, None)

    def _end(self, outcome: Outcome) -> bytes:
        if outcome.failure is not None:
            return b"data: %b\n\n" % orjson.dumps({"error": from_failure(outcome.failure).body})
        lines = self._open() + self._chunk({"content": ""} if self._told else {}, finish_reason(outcome))
        return lines + self.closing([outcome]) if self._last else lines

    def closing(self, outcomes: Sequence[Outcome]) -> bytes:
        """Return the lines behind the last choice."""
        if not self._include_usage:
            return DONE
        usage, timing = usage_told(self._response, outcomes), timing_object(outcomes[0].timing)
        last = {**self._shared, "choices": [], "usage": usage, "timing": timing}
        return b"data: %b\n\n%b" % (orjson.dumps(last), DONE)

    def _chunk(self, delta: dict[str, Any], finish: str | None) -> bytes:
        choice = {
            "index": self._index,
            "delta": {**self._told, **delta},
            "logprobs": None,
            "finish_reason": finish,
        }
        chunk = {**self._shared, "choices": [choice]}
        if self._include_usage:
            chunk["usage"] = None
        return b"data: %b\n\n" % orjson.dumps(chunk)


class Choices:
    """Encodes the records of several answers to one request, choice by choice."""

    __slots__ = ("_chunks", "_outcomes")

    def __init__(self, first: Response, *, include_usage: bool) -> None:
        count = 1 + len(first.siblings)
        self._chunks = [
            Chunks(first, include_usage=include_usage, index=index, last=False) for index in range(count)
        ]
        self._outcomes: dict[int, Outcome] = {}

    def encode(self, index: int, record: Record) -> bytes:
        """Return the lines of a record of choice `index`. Raises what the answer failed with: nothing may follow."""
        if not isinstance(record.body, Ended):
            return self._chunks[index].encode(record)
        outcome = self._outcomes[index] = record.body.outcome
        if outcome.failure is not None:
            raise from_failure(outcome.failure)
        lines = self._chunks[index].encode(record)
        if len(self._outcomes) == len(self._chunks):
            lines += self._chunks[0].closing([self._outcomes[i] for i in range(len(self._chunks))])
        return lines
