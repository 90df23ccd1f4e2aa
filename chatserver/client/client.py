"""The client: one server, one key, any number of answers."""

from __future__ import annotations

import asyncio
import secrets
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from chatserver.client.answer import Answer
from chatserver.client.calls import Calls
from chatserver.client.options import Options
from chatserver.client.results import Conversation, Item, Result, conversation_of, item_of, result_of

SPARE = 8
"""Connections beside those that bring answers: for stops and other calls."""
WRITE_TIMEOUT = 30.0


def connect(url: str, key: str | None = None, options: Options | None = None) -> Client:
    """Return a client for `async with`. `url`: http(s)://host:port, with or without /v1.

    Raises ValueError for another kind of address. Nothing is sent before `async with`.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"url: expected http:// or https:// and a host, got {url[:200]!r}")
    return Client(url.rstrip("/").removesuffix("/v1"), key, options or Options())


class Client:
    """See `connect`. All methods raise Refused (KeyRefused, Gone), Unreachable or ProtocolError."""

    def __init__(self, url: str, key: str | None, options: Options) -> None:
        limits = httpx.Limits(max_connections=options.concurrency + SPARE, keepalive_expiry=30)
        timeout = httpx.Timeout(
            connect=options.connect_timeout,
            read=options.silence,
            write=WRITE_TIMEOUT,
            pool=options.call_timeout,
        )
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout, limits=limits)
        self._calls = Calls(self._http, options)
        self._options = options
        self._slots = asyncio.Semaphore(options.concurrency)

    async def __aenter__(self) -> Client:
        """Wait until the server is there and takes the key."""
        try:
            await self.models()
        except BaseException:
            await self._http.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections; answers go on at the server."""
        await self._http.aclose()

    def send(
        self,
        message: str | list[dict[str, Any]] | None,
        *,
        conversation: str | dict[str, Any] | None = None,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Answer:
        """Return the answer to a message, for `async with`.

        `conversation`: the id of one, or {"id": …, "parent": …} to branch under an item; without it a new one begins.
        `idempotency_key`: one of your own if this program, too, may die before it knows the answer's id. `fields`:
        whatever else POST /v1/responses takes.
        """
        given = {"input": message, "conversation": conversation, **fields, "stream": True}
        request = {name: value for name, value in given.items() if value is not None}
        key = idempotency_key or f"py-{secrets.token_hex(16)}"
        return Answer(self._calls, self._options, self._slots, request=request, key=key)

    def resume(self, response_id: str, after: int = -1) -> Answer:
        """Return an answer that was asked for before, behind a position, for `async with`."""
        return Answer(self._calls, self._options, self._slots, response_id=response_id, after=after)

    async def ask(self, message: str | list[dict[str, Any]], **fields: Any) -> Result:
        """Send, read to the end, and return the result; `fields` as for `send`. Raises AnswerFailed as well."""
        async with self.send(message, **fields) as answer:
            return await answer.finish()

    async def response(self, response_id: str) -> Result:
        """Return how a response stands."""
        return result_of(await self.call("GET", f"/v1/responses/{_name(response_id)}"))

    async def models(self) -> list[str]:
        """Return the names of the models that are served."""
        return [str(model["id"]) for model in (await self.call("GET", "/v1/models"))["data"]]

    async def create_conversation(self, metadata: dict[str, str] | None = None) -> Conversation:
        """Make an empty conversation."""
        return conversation_of(await self.call("POST", "/v1/conversations", {"metadata": metadata or {}}))

    async def conversation(self, conversation_id: str) -> Conversation:
        """Return a conversation."""
        return conversation_of(await self.call("GET", f"/v1/conversations/{_name(conversation_id)}"))

    async def conversations(self, limit: int = 20) -> list[Conversation]:
        """Return up to 100 conversations, the last used first."""
        page = await self.call("GET", "/v1/conversations", query={"limit": limit})
        return [conversation_of(data) for data in page["data"]]

    async def items(self, conversation_id: str, limit: int = 100) -> list[Item]:
        """Return the last items of a conversation, up to 100, the oldest first."""
        query = {"limit": limit, "order": "desc"}
        page = await self.call("GET", f"/v1/conversations/{_name(conversation_id)}/items", query=query)
        return [item_of(data) for data in reversed(page["data"])]

    async def delete_conversation(self, conversation_id: str) -> None:
        """Remove a conversation and all that belongs to it."""
        await self.call("DELETE", f"/v1/conversations/{_name(conversation_id)}")

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: dict[str, Any] | None = None,
        safe: bool = False,
    ) -> Any:
        """Return the JSON answer to any other call of the API; `safe`: it may be sent twice (GET and DELETE are)."""
        return await self._calls.json(method, path, body, query, safe=safe)


def _name(identifier: str) -> str:
    return quote(identifier, safe="")
