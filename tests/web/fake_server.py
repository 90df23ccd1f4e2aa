"""A server that plays the protocol for the page's tests, with scripted answers and faults.

The question scripts its answer, one word each: `queue=2` seconds in the queue, `gap=0.02` seconds between deltas,
`drop=5` closes the socket after that many deltas, `fail=3` fails after that many, `words=40`. Anything else is echoed.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from chatserver.transports.static import Page
from tests.web.fake_tape import Script, Tape

WEB = Path(__file__).resolve().parents[2] / "web"
COME_BACK = 1013
NO_KEY = 4501


@dataclass
class Fake:
    """The server's memory and its switches."""

    key: str | None = None
    ready: bool = True
    answer: str = ""
    conversations: dict[str, dict[str, Any]] = field(default_factory=dict)
    items: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    tapes: dict[str, Tape] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    sockets: set[WebSocket] = field(default_factory=set)
    frames: list[dict[str, Any]] = field(default_factory=list)
    deaf: bool = False
    url: str = ""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def app(self) -> Starlette:
        """Return the application."""
        one = "/v1/conversations/{id}"
        return Starlette(
            routes=[
                WebSocketRoute("/v1/responses", self.socket),
                Route("/v1/conversations", self.list, methods=["GET"]),
                Route("/v1/conversations", self.create, methods=["POST"]),
                Route(one, self.one, methods=["GET", "POST", "DELETE"]),
                Route(one + "/items", self.list_items),
                Route("/v1/responses/{id}", self.get_response),
                Route("/v1/models", self.models),
                Route("/readyz", self.readyz),
                Mount("/", Page(WEB)),
            ]
        )

    async def drop_all(self) -> None:
        """Break every connection."""
        for socket in list(self.sockets):
            await socket.close(COME_BACK)

    # HTTP

    def _refusal(self, request: Request) -> JSONResponse | None:
        if self.key is None or request.headers.get("authorization") == f"Bearer {self.key}":
            return None
        return _error(401, "invalid_api_key", "Missing or wrong API key.")

    async def list(self, request: Request) -> JSONResponse:
        data = sorted(self.conversations.values(), key=lambda it: -it["updated_at"])
        return self._refusal(request) or JSONResponse(_page(data, False))

    async def create(self, request: Request) -> JSONResponse:
        if refusal := self._refusal(request):
            return refusal
        return JSONResponse(self.add_conversation())

    def add_conversation(self, title: str = "", messages: tuple[tuple[str, str], ...] = ()) -> dict[str, Any]:
        """Make a conversation; messages are (role, text)."""
        it: dict[str, Any] = {
            "id": "conv_" + secrets.token_hex(8),
            "object": "conversation",
            "created_at": int(time.time()),
        }
        it |= {"metadata": {}, "title": title, "updated_at": time.time(), "active": None}
        self.conversations[it["id"]] = it
        self.items[it["id"]] = [_item(role, text, None) for role, text in messages]
        return it

    async def one(self, request: Request) -> JSONResponse:
        if refusal := self._refusal(request):
            return refusal
        it = self.conversations.get(request.path_params["id"])
        if it is None:
            return _error(404, "not_found", "No such conversation.")
        if request.method == "POST":
            it["title"] = (await request.json())["title"]
        if request.method == "DELETE":
            del self.conversations[it["id"]]
            return JSONResponse({"id": it["id"], "object": "conversation.deleted", "deleted": True})
        return JSONResponse(it)

    async def list_items(self, request: Request) -> JSONResponse:
        if refusal := self._refusal(request):
            return refusal
        items = self.items.get(request.path_params["id"])
        if items is None:
            return _error(404, "not_found", "No such conversation.")
        data = items[::-1] if request.query_params["order"] == "desc" else items
        ids = [it["id"] for it in data]
        after = request.query_params.get("after")
        start = ids.index(after) + 1 if after else 0
        limit = int(request.query_params["limit"])
        return JSONResponse(_page(data[start : start + limit], start + limit < len(data)))

    async def get_response(self, request: Request) -> JSONResponse:
        tape = self.tapes.get(request.path_params["id"])
        return JSONResponse(tape.response) if tape else _error(404, "not_found", "No such response.")

    async def models(self, request: Request) -> JSONResponse:
        models = [{"id": "deepseek-tiny", "object": "model"}] if self.ready else []
        return self._refusal(request) or JSONResponse({"object": "list", "data": models})

    async def readyz(self, request: Request) -> JSONResponse:
        if self.ready:
            return JSONResponse({"status": "ready", "reason": None, "engines": []})
        body = {"status": "unavailable", "reason": "loading weights, 40 %", "engines": []}
        return JSONResponse(body, 503)

    # WebSocket

    async def socket(self, socket: WebSocket) -> None:
        await socket.accept()
        self.sockets.add(socket)
        followers: set[asyncio.Task[None]] = set()
        try:
            if self.key is not None and (await socket.receive_json()) != {"type": "auth", "token": self.key}:
                await socket.close(NO_KEY)
                return
            while True:
                frame = await socket.receive_json()
                self.frames.append(frame)
                if not self.deaf:
                    task = asyncio.create_task(self._take(socket, frame))
                    followers.add(task)
                    task.add_done_callback(followers.discard)
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            self.sockets.discard(socket)
            for task in followers:
                task.cancel()

    async def _take(self, socket: WebSocket, frame: dict[str, Any]) -> None:
        lane = frame.get("stream_id")
        if frame["type"] == "response.cancel":
            self.tapes[frame["response_id"]].stop = True
        elif frame["type"] == "response.create":
            await self._follow(socket, self._begin(frame), -1, lane)
        elif frame["type"] == "response.attach":
            tape = self.tapes.get(frame["response_id"])
            if tape is None:
                error = {
                    "type": "invalid_request_error",
                    "code": "not_found",
                    "message": "gone",
                    "param": None,
                }
                await socket.send_json({"type": "error", "status": 404, "error": error, "stream_id": lane})
            else:
                await self._follow(socket, tape, frame.get("starting_after", -1), lane)

    def _begin(self, frame: dict[str, Any]) -> Tape:
        key = frame["idempotency_key"]
        if key in self.keys:
            return self.tapes[self.keys[key]]
        conversation, text = frame["conversation"], frame["input"]
        response = {
            "id": "resp_" + secrets.token_hex(8),
            "object": "response",
            "status": "queued",
            "output": [],
        }
        self.keys[key] = response["id"]
        tape = self.tapes[response["id"]] = Tape(response, Script.of(text))
        it = self.conversations[conversation]
        it |= {
            "title": it["title"] or text.split("\n")[0][:60],
            "updated_at": time.time(),
            "active": response["id"],
        }
        self.items[conversation].append(_item("user", text, None))
        task = asyncio.create_task(
            self._play(tape, conversation, self.answer or _words(text, tape.script.words))
        )
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return tape

    async def _follow(self, socket: WebSocket, tape: Tape, after: int, lane: str | None) -> None:
        deltas = 0
        async for event in tape.follow():
            if event["sequence_number"] <= after:
                continue
            await socket.send_json({**event, "stream_id": lane})
            deltas += event["type"] == "response.output_text.delta"
            if deltas == tape.script.drop and not tape.dropped:
                tape.dropped = True
                await socket.close(COME_BACK)
                return

    async def _play(self, tape: Tape, conversation: str, answer: str) -> None:
        """Write the tape of an answer."""
        script, response, started = tape.script, tape.response, time.time()
        await tape.write("response.created", response=dict(response))
        await tape.write("response.queued", response=dict(response))
        deadline = time.time() + script.queue
        while time.time() < deadline and not tape.stop:
            await asyncio.sleep(0.01)
        item = _item("assistant", "", response["id"])
        place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        sent = ""
        if not tape.stop:
            await tape.write("response.in_progress", response={**response, "status": "in_progress"})
            await tape.write("response.output_item.added", output_index=0, item={**item, "content": []})
            await tape.write("response.content_part.added", **place, part={"type": "output_text", "text": ""})
            for count, piece in enumerate(re.findall(r"\S+\s*|\s+", answer)):
                if tape.stop or count == script.fail:
                    break
                await asyncio.sleep(script.gap)
                sent += piece
                await tape.write("response.output_text.delta", width=count % 3 + 1, **place, delta=piece)
            await tape.write("response.output_text.done", **place, text=sent)
        await self._end(tape, conversation, item, sent, time.time() - started)

    async def _end(
        self, tape: Tape, conversation: str, item: dict[str, Any], text: str, seconds: float
    ) -> None:
        failed = tape.script.fail >= 0
        item["content"][0]["text"] = text
        item["status"] = "incomplete" if tape.stop or failed else "completed"
        status = "failed" if failed else "cancelled" if tape.stop else "completed"
        usage = {
            "input_tokens": 1204,
            "input_tokens_details": {"cached_tokens": 1180},
            "output_tokens": len(text) // 4,
        }
        tape.response |= {"status": status, "output": [item] if text else [], "usage": usage}
        tape.response["timing"] = {"queued_ms": 2, "ttft_ms": 312.4, "tokens_per_second": 41.26}
        tape.response["error"] = (
            {"code": "engine_failed", "message": "The engine went away."} if failed else None
        )
        if text:
            self.items[conversation].append(item)
        self.conversations[conversation]["active"] = None
        kind = {"failed": "response.failed", "cancelled": "response.incomplete"}.get(
            status, "response.completed"
        )
        await tape.write(kind, response=dict(tape.response))
        tape.ended = True
        async with tape.bell:
            tape.bell.notify_all()


def _words(text: str, count: int) -> str:
    return " ".join(f"word{index}" for index in range(count)) + f"\n\nYou said: {text}"


def _item(role: str, text: str, response_id: str | None) -> dict[str, Any]:
    part = {"type": "output_text" if role == "assistant" else "input_text", "text": text}
    it: dict[str, Any] = {
        "id": "msg_" + secrets.token_hex(8),
        "type": "message",
        "role": role,
        "status": "completed",
    }
    return it | {"content": [part], "response_id": response_id}


def _page(data: list[dict[str, Any]], more: bool) -> dict[str, Any]:
    first, last = (data[0]["id"], data[-1]["id"]) if data else ("", "")
    return {"object": "list", "data": data, "has_more": more, "first_id": first, "last_id": last}


def _error(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message, "type": "x", "param": None}}, status)
