"""/v1/responses: create, read, follow, cancel, delete."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from starlette.requests import Request
from starlette.responses import Response as HttpResponse
from starlette.routing import Route

from chatserver.domain.response import Outcome, Response
from chatserver.domain.tape import Record
from chatserver.errors import BadRequest, ChatServerError
from chatserver.service.web.admission import Ticket
from chatserver.service.web.reader import Reader, refuse_outcome
from chatserver.transports.door import Door, fingerprint, idempotency_key, json_response
from chatserver.transports.lasting import header
from chatserver.transports.sse import PADDING, Events, EventStream, wait_a_while, whole
from chatserver.wire import input_tokens
from chatserver.wire import responses as wire
from chatserver.wire.errors import flat_event
from chatserver.wire.fields import Fields, digits, load
from chatserver.wire.item_lists import item_page, within
from chatserver.wire.lists import parse_page
from chatserver.wire.response_events import ResponseEvents
from chatserver.wire.response_objects import response_object

MAX_POSITION = 2**53


def routes(door: Door) -> list[Route]:
    """Return the routes."""
    endpoints = _Endpoints(door)
    one = "/v1/responses/{response_id}"
    return [
        Route("/v1/responses", endpoints.create, methods=["POST"]),
        Route("/v1/responses/input_tokens", endpoints.input_tokens, methods=["POST"]),
        Route(one, endpoints.retrieve, methods=["GET"]),
        Route(one, endpoints.delete, methods=["DELETE"]),
        Route(f"{one}/cancel", endpoints.cancel, methods=["POST"]),
        Route(f"{one}/input_items", endpoints.input_items, methods=["GET"]),
    ]


class _Endpoints:
    def __init__(self, door: Door) -> None:
        self._door = door
        self._chat = door.chat

    async def create(self, request: Request) -> HttpResponse:
        tenant = self._door.tenant(request)
        key = idempotency_key(header(request.scope, b"idempotency-key"))
        body = await request.body()
        ask = wire.parse(load(body))
        detached = ask.background and not ask.stream
        response, fresh = await self._chat.respond(
            tenant,
            ask,
            key=key,
            fingerprint=fingerprint("responses", body),
            watch=not detached,
            payer=self._door.ticket(request),
        )
        if detached:
            return json_response(response_object(response))
        reader = await self._chat.attach(response, fresh=fresh, resumable=ask.stream)
        try:
            ticket = self._door.ticket(request)
            return await (self._stream if ask.stream else self._whole)(response, reader, ticket)
        except BaseException:
            await reader.aclose()
            raise

    async def _stream(self, response: Response, reader: Reader, ticket: Ticket) -> HttpResponse:
        opening = await self._chat.opening(reader)
        return _events(response, reader, opening, -1, ticket)

    async def _whole(self, response: Response, reader: Reader, ticket: Ticket) -> HttpResponse:
        def render(outcome: Outcome) -> bytes:
            refuse_outcome(outcome)
            return orjson.dumps(response_object(response, status=outcome.status, outcome=outcome))

        return await whole(reader, lambda: wait_a_while(reader), render, ticket)

    async def input_tokens(self, request: Request) -> HttpResponse:
        tenant = self._door.tenant(request)
        ask = input_tokens.parse(load(await request.body()))
        return json_response(input_tokens.input_tokens_object(await self._chat.counting.count(tenant, ask)))

    async def retrieve(self, request: Request) -> HttpResponse:
        tenant = self._door.tenant(request)
        response_id = request.path_params["response_id"]
        query = self._door.query(request, logprobs=True)  # they come by themselves, if they were asked for
        streamed, after = _parse_retrieve(query, request.headers.get("last-event-id"))
        if not streamed:
            return json_response(response_object(await self._chat.response(tenant, response_id)))
        response, reader = await self._chat.read(tenant, response_id, after)
        try:
            records: list[Record] = []
            if response.status.ended:
                records = await reader.batch()
                if not records:
                    await reader.aclose()
                    return HttpResponse(status_code=204)  # tells EventSource not to come back
            return _events(response, reader, records, after, self._door.ticket(request))
        except BaseException:
            await reader.aclose()
            raise

    async def delete(self, request: Request) -> HttpResponse:
        response_id = request.path_params["response_id"]
        await self._chat.delete_response(self._door.tenant(request), response_id)
        return json_response({"id": response_id, "object": "response", "deleted": True})

    async def cancel(self, request: Request) -> HttpResponse:
        response = await self._chat.stop(self._door.tenant(request), request.path_params["response_id"])
        return json_response(response_object(response))

    async def input_items(self, request: Request) -> HttpResponse:
        tenant = self._door.tenant(request)
        page = parse_page(self._door.query(request))
        items = await self._chat.input_items(tenant, request.path_params["response_id"])
        return json_response(item_page(within(items, page), page))


def _events(
    response: Response, reader: Reader, records: list[Record], after: int, ticket: Ticket
) -> EventStream:
    events = ResponseEvents(response)

    def encode(record: Record) -> bytes:
        return events.sse(record, after)

    def on_error(error: ChatServerError) -> bytes:
        return b"event: error\ndata: %b\n\n" % flat_event(error, max(reader.after, 0))

    return EventStream(reader, Events(reader, records, encode, on_error, opening=PADDING), ticket)


def _parse_retrieve(query: Mapping[str, str], last_event_id: str | None) -> tuple[bool, int]:
    """Return whether to stream, and after which position; Last-Event-ID wins over the query."""
    fields = Fields(query)
    stream_word = fields.take("stream", "false")
    fields.inert("include_obfuscation", "false")
    text = fields.take("starting_after", None)
    fields.done()
    if stream_word.lower() not in ("true", "false"):
        raise BadRequest(f"stream: expected true or false, got {stream_word[:60]!r}", param="stream")
    field = "Last-Event-ID" if last_event_id else "starting_after"
    text = last_event_id or text
    if text is None or text == "":
        return stream_word.lower() == "true", -1
    after = digits(text, 0, MAX_POSITION)
    if after is None:
        raise BadRequest(f"{field}: expected a sequence number, got {text[:60]!r}", param=field)
    return stream_word.lower() == "true", after
