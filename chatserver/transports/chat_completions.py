"""POST /v1/chat/completions and GET /v1/models, with and without /v1, and under DeepSeek's /beta."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response as HttpResponse
from starlette.routing import Route

from chatserver.domain.response import Outcome, Response
from chatserver.errors import ChatServerError
from chatserver.service.web.admission import Ticket
from chatserver.service.web.reader import Reader
from chatserver.transports.door import Door, fingerprint, idempotency_key, json_response
from chatserver.transports.lasting import header
from chatserver.transports.sse import Events, EventStream, whole
from chatserver.transports.together import Together
from chatserver.wire import chat_completions as wire
from chatserver.wire import errors
from chatserver.wire.chat_chunks import Choices, Chunks
from chatserver.wire.commands import CompleteChat
from chatserver.wire.errors import from_failure
from chatserver.wire.fields import load
from chatserver.wire.lists import list_object

PREFIXES = ("/v1", "", "/beta")
"""The base URLs of the clients: OpenAI's, DeepSeek's, and DeepSeek's for what it calls beta."""
CONVERSATION = "x-conversation-id"
"""The header that ties a request to a conversation, in which it is stored; the answer has it, too."""


def routes(door: Door) -> list[Route]:
    """Return the routes of this dialect."""
    endpoints = _Endpoints(door)
    return [
        route
        for prefix in PREFIXES
        for route in (
            Route(f"{prefix}/chat/completions", endpoints.create, methods=["POST"]),
            Route(f"{prefix}/models", endpoints.models, methods=["GET"]),
            Route(f"{prefix}/models/{{model:path}}", endpoints.model, methods=["GET"]),
        )
    ]


class _Endpoints:
    def __init__(self, door: Door) -> None:
        self._door = door

    async def create(self, request: Request) -> HttpResponse:
        tenant = self._door.tenant(request)
        key = idempotency_key(header(request.scope, b"idempotency-key"))
        body = await request.body()
        conversation = header(request.scope, CONVERSATION.encode())
        ask = wire.in_conversation(wire.parse(load(body)), conversation)
        chat = self._door.chat
        response, fresh = await chat.complete(
            tenant,
            ask,
            key=key,
            fingerprint=fingerprint(f"chat {conversation or ''}", body),
            payer=self._door.ticket(request),
        )
        readers = [await chat.attach(response, fresh=fresh, resumable=False)]
        together = Together(readers)
        try:
            readers += [(await chat.read(tenant, sibling))[1] for sibling in response.siblings]
            answer = self._stream if ask.stream else self._whole
            answered = await answer(ask, response, readers, together, self._door.ticket(request))
        except BaseException:
            await together.aclose()
            raise
        if response.conversation is not None:
            answered.headers[CONVERSATION] = response.conversation
        return answered

    async def _stream(
        self,
        ask: CompleteChat,
        response: Response,
        readers: list[Reader],
        together: Together,
        ticket: Ticket,
    ) -> HttpResponse:
        opening = await self._door.chat.opening(readers[0])
        if not response.siblings:
            chunks = Chunks(response, include_usage=ask.include_usage)
            return EventStream(readers[0], Events(readers[0], opening, chunks.encode, _error_line), ticket)
        choices = Choices(response, include_usage=ask.include_usage)
        return EventStream(together, together.events(opening, choices.encode, _error_line), ticket)

    async def _whole(
        self,
        ask: CompleteChat,
        response: Response,
        readers: list[Reader],
        together: Together,
        ticket: Ticket,
    ) -> HttpResponse:
        def render(outcomes: list[Outcome]) -> bytes:
            for outcome in outcomes:
                if outcome.failure is not None:
                    raise from_failure(outcome.failure)
            return wire.completion(response, outcomes)

        return await whole(together, together.outcomes, render, ticket)

    async def models(self, request: Request) -> HttpResponse:
        models = await self._door.chat.models.all()
        return json_response(list_object(models, wire.model_object, has_more=False))

    async def model(self, request: Request) -> HttpResponse:
        return json_response(
            wire.model_object(await self._door.chat.models.resolve(request.path_params["model"]))
        )


def _error_line(error: ChatServerError) -> bytes:
    return b"data: %b\n\n" % errors.body(error)
