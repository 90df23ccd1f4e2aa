"""The Python client: answers that survive every cut, from asyncio programs. It needs httpx and nothing of the server.

    async with connect("http://127.0.0.1:8000", key="…") as client:
        async with client.send("Tell me about tides.") as answer:
            async for event in answer:
                if isinstance(event, TextDelta):
                    print(event.text, end="")
        print(answer.result.usage.cached, "tokens came from the cache")

A stream that breaks, for whatever reason, is taken up again behind the last event that was handed out; a request
that may have been lost is sent again under its idempotency key, so that there is one answer and it is read once.
Every answer has a stream of its own (SSE): one that is not read holds up no other.
"""

from chatserver.client.answer import Answer
from chatserver.client.client import Client, connect
from chatserver.client.errors import (
    AnswerFailed,
    ClientError,
    Gone,
    KeyRefused,
    ProtocolError,
    Refused,
    Unreachable,
)
from chatserver.client.events import (
    Created,
    Event,
    Finished,
    Interrupted,
    ItemAdded,
    ItemDone,
    Lost,
    Other,
    Queued,
    QueuePlace,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
)
from chatserver.client.options import Options
from chatserver.client.results import Conversation, Item, Result, Usage

__all__ = [
    "Answer",
    "AnswerFailed",
    "Client",
    "ClientError",
    "Conversation",
    "Created",
    "Event",
    "Finished",
    "Gone",
    "Interrupted",
    "Item",
    "ItemAdded",
    "ItemDone",
    "KeyRefused",
    "Lost",
    "Options",
    "Other",
    "ProtocolError",
    "QueuePlace",
    "Queued",
    "ReasoningDelta",
    "Refused",
    "Result",
    "Started",
    "TextDelta",
    "ToolCallDelta",
    "Unreachable",
    "Usage",
    "connect",
]
