"""Read a request for a response (POST /v1/responses, and `response.create` on the WebSocket)."""

from __future__ import annotations

from typing import Any

from chatserver.domain.item import Message
from chatserver.domain.response import Params
from chatserver.errors import BadRequest
from chatserver.wire.commands import CreateResponse, Orphan, Place
from chatserver.wire.fields import Fields, metadata, wrong
from chatserver.wire.form import response_form
from chatserver.wire.logprobs import INCLUDE, response_logprobs
from chatserver.wire.messages import MAX_TEXT, first_messages, input_messages
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

MAX_ID = 128
HARMLESS_INCLUDES = frozenset(
    {
        # Asks for parts of items that no answer here has, so that leaving them out is exact.
        "file_search_call.results",
        "web_search_call.results",
        "web_search_call.action.sources",
        "message.input_image.image_url",
        "computer_call_output.output.image_url",
        "code_interpreter_call.outputs",
        "reasoning.encrypted_content",
    }
)


def parse(body: dict[str, Any]) -> CreateResponse:
    """Check the body of a request for a response. Raises BadRequest, which names the field."""
    fields = Fields(body)
    if fields.has("continue"):
        return _parse_continue(fields)
    conversation, parent = _conversation(fields)
    previous = fields.text("previous_response_id", None, longest=MAX_ID)
    if conversation is not None and previous is not None:
        raise BadRequest(
            "previous_response_id: expected it without conversation, got both",
            param="previous_response_id",
        )
    continues = conversation is not None or previous is not None
    messages, orphans = _input(fields, continues)
    form, echo = response_form(fields)
    include = fields.items("include", [], most=20)
    check_include(include, logprobs=True)
    params = Params(
        model=fields.text("model", "", longest=MAX_MODEL),
        instructions=fields.text("instructions", None, longest=MAX_TEXT),
        max_output_tokens=fields.whole("max_output_tokens", None, 1, MAX_OUTPUT),
        **truncation(fields),
        metadata=metadata(fields.take("metadata")),
        logprobs=response_logprobs(fields, include),
        **sampling(fields),
        **form,
    )
    store, stream, background = fields.flag("store", True), fields.flag("stream"), fields.flag("background")
    count = answers(fields)
    if background and not store:
        raise BadRequest("background: expected store to be true with it, got false", param="background")
    if count > 1 and not store:
        raise BadRequest(f"n: expected 1 with store: false, got {count}", param="n")
    params.echo.update(labels(fields), background=background, store=store, **echo)
    _refuse_rest(fields)
    fields.done()
    return CreateResponse(
        params=params,
        messages=messages,
        conversation=conversation,
        parent=parent,
        previous=previous,
        count=count,
        store=store,
        stream=stream,
        background=background,
        orphans=orphans,
    )


def _parse_continue(fields: Fields) -> CreateResponse:
    """Check a request to go on with an answer: `continue` (an extension) and what may be beside it."""
    continues = fields.text("continue", longest=MAX_ID, shortest=1)
    if fields.take("input") not in (None, "", []):
        raise BadRequest(
            "input: expected none with continue; use previous_response_id to say something", param="input"
        )
    params = Params(
        model=fields.text("model", "", longest=MAX_MODEL),
        max_output_tokens=fields.whole("max_output_tokens", None, 1, MAX_OUTPUT),
        metadata=metadata(fields.take("metadata")),
    )
    stream, background = fields.flag("stream"), fields.flag("background")
    params.echo.update(labels(fields), background=background, store=True)
    fields.inert("store", True, why="cannot be false with continue")
    stream_options(fields, usage=False)
    check_include(fields.items("include", [], most=20))
    fields.done("cannot stand beside continue: the answer goes on as it was asked for")
    return CreateResponse(params, (), continues=continues, stream=stream, background=background)


def check_include(values: list[Any], path: str = "include", *, logprobs: bool = False) -> None:
    """Refuse an `include` value that asks for something that is not kept. `logprobs`: whether they may be asked for."""
    if not values:
        return
    offered = sorted(HARMLESS_INCLUDES) + ([INCLUDE] if logprobs else [])
    for index, value in enumerate(values):
        if value not in offered:
            advice = f"leave it out, or send one of: {', '.join(offered)}"
            raise BadRequest(
                f"{path}[{index}]: {str(value)[:60]!r} is not supported; {advice}",
                param=f"{path}[{index}]",
                code="unsupported_value",
            )


def _input(fields: Fields, continues: bool) -> tuple[tuple[Message, ...], tuple[Orphan, ...]]:
    value = fields.take("input")
    if value is None and continues:
        return (), ()
    if value is None:
        raise BadRequest(
            "Missing required parameter: 'input'.", param="input", code="missing_required_parameter"
        )
    if continues:
        return input_messages(value, "input")
    messages = first_messages(value, "input")
    if not messages:
        raise wrong("input", "at least one message", value)
    return messages, ()


def _conversation(fields: Fields) -> tuple[str | None, str | Place | None]:
    """Take `conversation`: an id, or {id}; our extension {id, parent} makes a branch under an item."""
    value = fields.take("conversation")
    if value is None:
        return None, Place.HEAD
    if isinstance(value, str):
        value = {"id": value}
    if not isinstance(value, dict):
        raise wrong("conversation", "an id or an object with one", value, code="invalid_type")
    inner = Fields(value, "conversation")
    identifier = inner.text("id", longest=MAX_ID)
    parent: str | Place | None = Place.HEAD
    if inner.has("parent"):
        parent = inner.text("parent", None, longest=MAX_ID)
    inner.done()
    return identifier, parent


def _refuse_rest(fields: Fields) -> None:
    refuse_unsupported(fields)
    stream_options(fields, usage=False)
    fields.whole("max_tool_calls", None, 0, 1_000_000)  # of built-in tools, which there are none of
    fields.inert("generate", True, why="is not supported: every create generates")
    for name in ("prompt", "background_options", "context_management", "image", "access_programs"):
        fields.inert(name)
