"""Chat Completions: read a request, write chunks and the whole answer, in OpenAI's and DeepSeek's dialect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson

from chatserver.domain.item import Item, PartKind
from chatserver.domain.response import Finish, Outcome, Params, Response, Usage
from chatserver.domain.tape import Delta, Ended, ItemOpened, Prefilled, Record, Started, Waiting
from chatserver.errors import BadRequest
from chatserver.wire.commands import NEW, CompleteChat
from chatserver.wire.errors import from_failure
from chatserver.wire.fields import Fields, metadata, wrong
from chatserver.wire.form import chat_form
from chatserver.wire.messages import MAX_MESSAGES, chat_messages
from chatserver.wire.response_events import encode_text, queue_comment
from chatserver.wire.response_objects import timing_object
from chatserver.wire.sampling import (
    MAX_MODEL,
    MAX_OUTPUT,
    answers,
    labels,
    refuse_unsupported,
    sampling,
    stream_options,
)
from chatserver.wire.truncation import truncation
from chatserver.wire.usage import priced

DONE = b"data: [DONE]\n\n"
MAX_ID = 128


def parse(body: dict[str, Any]) -> CompleteChat:
    """Check the body of a request. Raises BadRequest, which names the field."""
    fields = Fields(body)
    listed = fields.items("messages", most=MAX_MESSAGES)
    if not listed:
        raise wrong("messages", "at least one message", listed)
    messages = chat_messages(listed)
    params = Params(
        model=fields.text("model", longest=MAX_MODEL),
        progress=fields.flag("return_progress"),
        max_output_tokens=_max_tokens(fields),
        metadata=metadata(fields.take("metadata")),
        **truncation(fields),
        **sampling(fields),
        **chat_form(fields),
    )
    params.echo.update(labels(fields))
    stream = fields.flag("stream")
    if params.progress and not stream:
        raise BadRequest("return_progress: expected stream to be true with it", param="return_progress")
    include_usage = stream_options(fields, usage=True)
    count = answers(fields)
    fleeting = fields.inert("store", False, why="is not supported here; use /v1/responses to keep answers")
    _refuse_rest(fields)
    fields.done()
    return CompleteChat(params, messages, stream, include_usage, count, fleeting=fleeting is False)


def in_conversation(ask: CompleteChat, conversation: str | None) -> CompleteChat:
    """Return the request tied to the conversation that X-Conversation-Id names. Raises BadRequest."""
    if conversation is None:
        if ask.params.compaction:
            raise BadRequest(
                "truncation.compaction: expected X-Conversation-Id with it, as a summary is kept in a conversation",
                param="truncation.compaction",
            )
        return ask
    if not 0 < len(conversation) <= MAX_ID:
        raise BadRequest(
            f"X-Conversation-Id: expected an id, or {NEW}, got {conversation[:60]!r}",
            param="X-Conversation-Id",
        )
    if ask.fleeting:
        raise BadRequest(
            "store: expected it not to be false with X-Conversation-Id, got false", param="store"
        )
    return replace(ask, conversation=conversation)


def usage_object(usage: Usage) -> dict[str, Any]:
    """Return usage in both dialects; hit + miss = prompt; what misses the cache is written to it."""
    miss = usage.prompt - usage.cached
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.output,
        "total_tokens": usage.prompt + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": miss},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
        "prompt_cache_hit_tokens": usage.cached,
        "prompt_cache_miss_tokens": miss,
    }


def usage_of_all(outcomes: Sequence[Outcome]) -> Usage:
    """Return the usage of several answers to one prompt: the prompt counts once, as the first answer's does."""
    first = outcomes[0].usage
    return replace(
        first,
        output=sum(outcome.usage.output for outcome in outcomes),
        reasoning=sum(outcome.usage.reasoning for outcome in outcomes),
    )


def _usage(response: Response, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    used = usage_of_all(outcomes)
    return priced(usage_object(used), response, used)


def completion(response: Response, outcomes: Sequence[Outcome]) -> bytes:
    """Return the whole answer. `timing` (of the first one) is an extension."""
    return orjson.dumps(
        {
            "id": response.id,
            "object": "chat.completion",
            "created": response.created_at,
            "model": response.params.model,
            "choices": [
                {
                    "index": index,
                    "message": answer_message(outcome.item),
                    "logprobs": None,
                    "finish_reason": finish_reason(outcome),
                }
                for index, outcome in enumerate(outcomes)
            ],
            "usage": _usage(response, outcomes),
            "service_tier": "default",
            "system_fingerprint": None,
            "timing": timing_object(outcomes[0].timing),
        }
    )


def answer_message(item: Item | None) -> dict[str, Any]:
    """Return an answer as a message: `reasoning_content` and `tool_calls` only if it has some."""
    parts = item.parts if item else ()
    thoughts = [part.text for part in parts if part.kind is PartKind.REASONING]
    calls = [part for part in parts if part.kind is PartKind.CALL]
    text = item.text if item else ""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text or None if calls else text,
        "refusal": None,
    }
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = [
            {
                "id": call.call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.text},
            }
            for call in calls
        ]
    return message


def finish_reason(outcome: Outcome) -> str:
    """Return OpenAI's word; an answer that a user stopped has ended by `stop`."""
    if outcome.finish is Finish.LENGTH:
        return "length"
    parts = outcome.item.parts if outcome.item else ()
    called = outcome.finish is Finish.STOP and any(part.kind is PartKind.CALL for part in parts)
    return "tool_calls" if called else "stop"


class Chunks:
    """Encodes the records of one answer as `data:` lines. `index`: of its choice; what ends the stream is `last`'s."""

    __slots__ = (
        "_calls",
        "_heads",
        "_include_usage",
        "_index",
        "_last",
        "_opened",
        "_progress",
        "_response",
        "_shared",
        "_tail",
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
        head = b'data: %b,"choices":[{"index":%d,"delta":{' % (shared, index)
        self._heads = {
            PartKind.TEXT: head + b'"content":',
            PartKind.REASONING: head + b'"reasoning_content":',
        }
        self._tail = b'},"logprobs":null,"finish_reason":null}]%b}\n\n' % (
            b',"usage":null' if include_usage else b""
        )
        self._calls: dict[int, int] = {}

    def encode(self, record: Record) -> bytes:
        """Return the lines of a record, b"" if it has none."""
        body = record.body
        if type(body) is Delta:
            return self._delta(body)
        if isinstance(body, ItemOpened):
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
        return b"%b%b%b" % (self._heads[body.kind], encode_text(text), self._tail)

    def _call(self, body: ItemOpened) -> bytes:
        """Return the beginning of a call: clients count calls, not parts."""
        index = self._calls.setdefault(body.index, len(self._calls))
        function = {"name": body.name, "arguments": ""}
        call = {"index": index, "id": body.call_id, "type": "function", "function": function}
        return self._chunk({"tool_calls": [call]}, None)

    def _open(self) -> bytes:
        if self._opened:
            return b""
        self._opened = True
        return self._chunk({"role": "assistant", "content": "", "refusal": None}, None)

    def _end(self, outcome: Outcome) -> bytes:
        if outcome.failure is not None:
            return b"data: %b\n\n" % orjson.dumps({"error": from_failure(outcome.failure).body})
        lines = self._open() + self._chunk({}, finish_reason(outcome))
        return lines + self.closing([outcome]) if self._last else lines

    def closing(self, outcomes: Sequence[Outcome]) -> bytes:
        """Return the lines behind the last choice."""
        if not self._include_usage:
            return DONE
        usage, timing = _usage(self._response, outcomes), timing_object(outcomes[0].timing)
        last = {**self._shared, "choices": [], "usage": usage, "timing": timing}
        return b"data: %b\n\n%b" % (orjson.dumps(last), DONE)

    def _chunk(self, delta: dict[str, Any], finish: str | None) -> bytes:
        choice = {"index": self._index, "delta": delta, "logprobs": None, "finish_reason": finish}
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


def _max_tokens(fields: Fields) -> int | None:
    old = fields.whole("max_tokens", None, 1, MAX_OUTPUT)
    new = fields.whole("max_completion_tokens", None, 1, MAX_OUTPUT)
    if old is not None and new is not None and old != new:
        raise BadRequest(
            f"max_completion_tokens: expected it without max_tokens, got both, {new} and {old}",
            param="max_completion_tokens",
        )
    return new if new is not None else old


def _refuse_rest(fields: Fields) -> None:
    refuse_unsupported(fields)
    fields.inert("logprobs", False, why="is not supported: log-probabilities are not kept")
    fields.inert("functions", [], why="are not supported")
    fields.inert("function_call", "none", why="is not supported")
    fields.inert("logit_bias", {}, why="is not supported")
    fields.inert("modalities", ["text"], why="is not supported: text only")
    fields.inert("verbosity", "medium")
    for name in ("audio", "prediction", "web_search_options"):
        fields.inert(name)
