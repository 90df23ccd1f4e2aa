"""POST /v1/responses/input_tokens: a request for a response of which only the prompt matters."""

from __future__ import annotations

from typing import Any

from chatserver.wire import responses
from chatserver.wire.commands import CreateResponse
from chatserver.wire.fields import unknown

FIELDS = frozenset(
    (
        "conversation",
        "input",
        "instructions",
        "model",
        "parallel_tool_calls",
        "previous_response_id",
        "reasoning",
        "text",
        "tool_choice",
        "tools",
        "truncation",
    )
)


def parse(body: dict[str, Any]) -> CreateResponse:
    """Check the body. Raises BadRequest, which names the field."""
    for name in body:
        if name not in FIELDS:
            raise unknown(name, FIELDS)
    return responses.parse(body)


def input_tokens_object(tokens: int) -> dict[str, Any]:
    """Return the answer."""
    return {"object": "response.input_tokens", "input_tokens": tokens}
