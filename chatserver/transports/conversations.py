"""/v1/conversations and their items."""

from __future__ import annotations

from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from chatserver.transports.door import Door, json_response
from chatserver.wire import conversations as wire
from chatserver.wire.caches import cache_closed_object, cache_object
from chatserver.wire.fields import load
from chatserver.wire.item_lists import item_list, item_page, one_of, parse_branch, within
from chatserver.wire.lists import list_object, parse_page


def routes(door: Door) -> list[Route]:
    """Return the routes."""
    endpoints = _Endpoints(door)
    one = "/v1/conversations/{conversation_id}"
    return [
        Route("/v1/conversations", endpoints.create, methods=["POST"]),
        Route("/v1/conversations", endpoints.list, methods=["GET"]),
        Route(one, endpoints.get, methods=["GET"]),
        Route(one, endpoints.update, methods=["POST"]),
        Route(one, endpoints.delete, methods=["DELETE"]),
        Route(f"{one}/cache", endpoints.cache, methods=["GET"]),
        Route(f"{one}/cache", endpoints.close_cache, methods=["DELETE"]),
        Route(f"{one}/items", endpoints.add_items, methods=["POST"]),
        Route(f"{one}/items", endpoints.list_items, methods=["GET"]),
        Route(f"{one}/items/{{item_id}}", endpoints.get_item, methods=["GET"]),
        Route(f"{one}/items/{{item_id}}", endpoints.delete_item, methods=["DELETE"]),
        Route(f"{one}/fork", endpoints.fork, methods=["POST"]),
    ]


class _Endpoints:
    def __init__(self, door: Door) -> None:
        self._door = door
        self._chat = door.chat

    async def create(self, request: Request) -> Response:
        tenant = self._door.tenant(request)
        body = await request.body()
        metadata, messages = wire.parse_create(load(body) if body.strip() else {})
        conversation = await self._chat.create_conversation(tenant, metadata, messages)
        return json_response(wire.conversation_object(conversation))

    async def list(self, request: Request) -> Response:
        tenant = self._door.tenant(request)
        page = parse_page(self._door.query(request), search=True)
        found, last = await self._chat.conversations(tenant, page)
        rendered = list_object(found, wire.conversation_object, has_more=last is not None, last=last or "")
        return json_response(rendered)

    async def get(self, request: Request) -> Response:
        tenant = self._door.tenant(request)
        conversation = await self._chat.conversation(tenant, _id(request))
        running = await self._chat.running(tenant, _id(request)) if conversation.active else []
        return json_response(wire.conversation_object(conversation, running))

    async def update(self, request: Request) -> Response:
        tenant = self._door.tenant(request)
        title, metadata = wire.parse_update(load(await request.body()))
        conversation = await self._chat.update_conversation(tenant, _id(request), title, metadata)
        return json_response(wire.conversation_object(conversation))

    async def delete(self, request: Request) -> Response:
        freed = await self._chat.delete_conversation(self._door.tenant(request), _id(request))
        return json_response(wire.deleted_object(_id(request), freed))

    async def cache(self, request: Request) -> Response:
        reports = await self._chat.warmth.reports(self._door.tenant(request), _id(request))
        return json_response(cache_object(_id(request), reports))

    async def close_cache(self, request: Request) -> Response:
        freed = await self._chat.warmth.close(self._door.tenant(request), _id(request))
        return json_response(cache_closed_object(_id(request), freed))

    async def add_items(self, request: Request) -> Response:
        tenant = self._door.tenant(request)
        self._door.query(request)
        messages, orphans = wire.parse_items(load(await request.body()))
        items = await self._chat.add_items(tenant, _id(request), messages, orphans)
        return json_response(item_list(items))

    async def list_items(self, request: Request) -> Response:
        tenant = self._door.tenant(request)
        wanted, query = parse_branch(self._door.query(request))
        page = parse_page(query)
        if wanted.everything:
            page = replace(page, newest_first=False)
            return json_response(item_page(await self._chat.tree.all(tenant, _id(request), page), page))
        tree = self._chat.tree
        if wanted.through is None:
            items = await tree.branch(tenant, _id(request), wanted.leaf)
        else:
            items = await tree.through(tenant, _id(request), wanted.through)
        found = within(items, page)
        beside = await tree.siblings(tenant, _id(request), items, found) if wanted.siblings else None
        found = await self._chat.tree.with_summaries(tenant, _id(request), found)
        if page.after is None:
            await self._chat.warmth.expect(tenant, _id(request))  # who opens it is likely to ask
        leaf = items[-1].id if items else ""
        return json_response(item_page(found, page, beside=beside, leaf=leaf))

    async def get_item(self, request: Request) -> Response:
        tenant = self._door.tenant(request)
        self._door.query(request)
        item = await self._chat.tree.item(tenant, _id(request), request.path_params["item_id"])
        return json_response(one_of(item, request.path_params["item_id"]))

    async def delete_item(self, request: Request) -> Response:
        tenant = self._door.tenant(request)
        left = await self._chat.tree.remove(tenant, _id(request), request.path_params["item_id"])
        freed = await self._chat.warmth.released(tenant, _id(request))
        return json_response({**wire.conversation_object(left), "freed_tokens": freed})

    async def fork(self, request: Request) -> Response:
        tenant = self._door.tenant(request)
        body = await request.body()
        leaf, metadata = wire.parse_fork(load(body) if body.strip() else {})
        fork = await self._chat.tree.fork(tenant, _id(request), leaf, metadata)
        return json_response(wire.conversation_object(fork))


def _id(request: Request) -> str:
    return request.path_params["conversation_id"]
