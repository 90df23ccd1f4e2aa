"""Chat Completions: read a request, write the whole answer, in OpenAI's and DeepSeek's dialect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import orjson

from chatserver.domain.item import Item, PartKind
from chatserver.domain.response import Finish, Outcome, Params, Response, Usage
from chatserver.errors import BadRequest
from chatserver.ports.registry import ServedModel
from chatserver.wire.commands import NEW, CompleteChat
from chatserver.wire.fields import Fields, metadata, wrong
from chatserver.wire.form import chat_form
from chatserver.wire.logprobs import chat_logprobs, choice_logprobs
from chatserver.wire.messages import MAX_MESSAGES, chat_messages
from chatserver.wire.prefix import prefixed, split_prefix
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

MAX_ID = 128
REASONER = "deepseek-reasoner"
"""Who asks for it reads `reasoning_content` of whatever comes, as DeepSeek's examples do."""


def parse(body: dict[str, Any]) -> CompleteChat:
    """Check the body of a request. Raises BadRequest, which names the field."""
    fields = Fields(body)
    listed = fields.items("messages", most=MAX_MESSAGES)
    if not listed:
        raise wrong("messages", "at least one message", listed)
    listed, prefix = split_prefix(listed)
    messages = chat_messages(listed)
    params = Params(
        model=fields.text("model", longest=MAX_MODEL),
        progress=fields.flag("return_progress"),
        max_output_tokens=_max_tokens(fields),
        metadata=metadata(fields.take("metadata")),
        logprobs=chat_logprobs(fields),
        **truncation(fields),
        **sampling(fields),
        **chat_form(fields),
    )
    params = prefixed(params, prefix, len(listed))
    if params.thinking or params.model.casefold() == REASONER:
        params = replace(params, tell_reasoning=True)
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
    if ask.params.prefix:
        field = f"messages[{len(ask.messages)}].prefix"
        raise BadRequest(
            f"{field}: expected no X-Conversation-Id with it: the answer that is kept would lack its beginning",
            param=field,
        )
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


def usage_told(response: Response, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the usage of all answers to a request, with what it cost."""
    used = usage_of_all(outcomes)
    return priced(usage_object(used), response, used)


def completion(response: Response, outcomes: Sequence[Outcome]) -> bytes:
    """Return the whole answer. `timing` (of the first one) is an extension."""
    plain = response.params.logprobs is None
    return orjson.dumps(
        {
            "id": response.id,
            "object": "chat.completion",
            "created": response.created_at,
            "model": response.params.model,
            "choices": [
                {
                    "index": index,
                    "message": answer_message(outcome.item, reasoning=response.params.tell_reasoning),
                    "logprobs": None if plain else choice_logprobs(chain.from_iterable(outcome.logprobs)),
                    "finish_reason": finish_reason(outcome),
                }
                for index, outcome in enumerate(outcomes)
            ],
            "usage": usage_told(response, outcomes),
            "service_tier": "default",
            "system_fingerprint": None,
            "timing": timing_object(outcomes[0].timing),
        }
    )


def answer_message(item: Item | None, *, reasoning: bool = False) -> dict[str, Any]:
    """Return an answer as a message; `tool_calls` if it has some, `reasoning_content` then or if `reasoning`."""
    parts = item.parts if item else ()
    thoughts = [part.text for part in parts if part.kind is PartKind.REASONING]
    calls = [part for part in parts if part.kind is PartKind.CALL]
    text = item.text if item else ""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text or None if calls else text,
        "refusal": None,
    }
    if thoughts or reasoning:
        message["reasoning_content"] = "".join(thoughts) if thoughts else None
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
    fields.inert("functions", [], why="are not supported")
    fields.inert("function_call", "none", why="is not supported")
    fields.inert("modalities", ["text"], why="is not supported: text only")
    fields.inert("verbosity", "medium")
    for name in ("audio", "prediction", "web_search_options"):
        fields.inert(name)


def model_object(model: ServedModel) -> dict[str, Any]:
    """Return a model. Extensions: context_window in tokens, aliases."""
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "chatserver",
        "context_window": model.context,
        "aliases": model.aliases,
    }
