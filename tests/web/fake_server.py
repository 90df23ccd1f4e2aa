"""A server that plays the protocol for the page's tests, with scripted answers and faults.

The question scripts its answer, one word each: `queue=2` seconds in the queue, `gap=0.02` seconds between deltas,
`drop=5` closes the socket after that many deltas, `fail=3` fails after that many, `words=40`, `think=8` words of
reasoning, `recover=5` loses the engine after that many deltas, `cut=2` sends the newest messages only. Anything else
is echoed.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from chatserver.transports.static import Page
from tests.web.fake_player import play
from tests.web.fake_tape import Script, Tape
from tests.web.fake_tree import Item, Tree, message

WEB = Path(__file__).resolve().parents[2] / "web"
COME_BACK = 1013
NO_KEY = 4501


@dataclass
class Fake:
    """The server's memory and its switches. `refuse`: the next create gets this error event.

    `held`: answers that queue stay there, others stand still after ten words, until it is unset: what a test looks at
    in mid-answer is there however late it looks.
    """

    key: str | None = None
    ready: bool = True
    answer: str = ""
    trees: dict[str, Tree] = field(default_factory=dict)
    tapes: dict[str, Tape] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    sockets: set[WebSocket] = field(default_factory=set)
    frames: list[dict[str, Any]] = field(default_factory=list)
    deaf: bool = False
    held: bool = False
    refuse: dict[str, Any] | None = None
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
                Route(one + "/items/{item}", self.delete_item, methods=["DELETE"]),
                Route(one + "/fork", self.fork, methods=["POST"]),
                Route("/v1/responses/{id}", self.get_response),
                Route("/v1/models", self.models),
                Route("/readyz", self.readyz),
                Mount("/", Page(WEB)),
            ]
        )

    def add_conversation(self, title: str = "", messages: tuple[tuple[str, str], ...] = ()) -> dict[str, Any]:
        """Make a conversation; messages are (role, text)."""
        tree = Tree(title=title)
        for role, text in messages:
            tree.add(message(role, text), tree.head)
        self.trees[tree.id] = tree
        return tree.told()

    # HTTP

    def _refusal(self, request: Request) -> JSONResponse | None:
        if self.key is None or request.headers.get("authorization") == f"Bearer {self.key}":
            return None
        return _error(401, "invalid_api_key", "Missing or wrong API key.")

    def _tree(self, request: Request) -> Tree | JSONResponse:
        found = self._refusal(request) or self.trees.get(request.path_params["id"])
        return found or _error(404, "not_found", "No such conversation.")

    async def list(self, request: Request) -> JSONResponse:
        data = [tree.told() for tree in sorted(self.trees.values(), key=lambda it: -it.updated_at)]
        return self._refusal(request) or JSONResponse(_page(data, False))

    async def create(self, request: Request) -> JSONResponse:
        return self._refusal(request) or JSONResponse(self.add_conversation())

    async def one(self, request: Request) -> JSONResponse:
        tree = self._tree(request)
        if isinstance(tree, JSONResponse):
            return tree
        if request.method == "POST":
            tree.title = (await request.json())["title"]
        if request.method == "DELETE":
            del self.trees[tree.id]
        tree.ring()
        return JSONResponse(tree.told())

    async def list_items(self, request: Request) -> JSONResponse:
        tree, query = self._tree(request), request.query_params
        if isinstance(tree, JSONResponse):
            return tree
        try:
            branch = (
                tree.through(query["through"])
                if "through" in query
                else tree.branch(query.get("leaf", tree.head))
            )
        except KeyError:
            return _error(404, "not_found", "No such item.")
        data = [part for item in tree.listed(branch) for part in _parts(item)]
        data = data[::-1] if query["order"] == "desc" else data
        after = query.get("after")
        start = [it["id"] for it in data].index(after) + 1 if after else 0
        end = start + int(query["limit"])
        return JSONResponse(_page(data[start:end], end < len(data)))

    async def delete_item(self, request: Request) -> JSONResponse:
        tree = self._tree(request)
        if isinstance(tree, JSONResponse):
            return tree
        if tree.running:
            return _error(
                409, "conversation_busy", "A turn of this conversation is still running: stop it first."
            )
        tree.remove(request.path_params["item"])
        return JSONResponse(tree.told())

    async def fork(self, request: Request) -> JSONResponse:
        tree = self._tree(request)
        if isinstance(tree, JSONResponse):
            return tree
        copy = tree.fork((await request.json())["leaf"])
        self.trees[copy.id] = copy
        return JSONResponse(copy.told())

    async def get_response(self, request: Request) -> JSONResponse:
        tape = self.tapes.get(request.path_params["id"])
        return JSONResponse(tape.response) if tape else _error(404, "not_found", "No such response.")

    async def models(self, request: Request) -> JSONResponse:
        models = [{"id": "deepseek-tiny", "object": "model"}] if self.ready else []
        return self._refusal(request) or JSONResponse({"object": "list", "data": models})

    async def readyz(self, request: Request) -> JSONResponse:
        if self.ready:
            return JSONResponse({"status": "ready", "reason": None, "engines": []})
        return JSONResponse({"status": "unavailable", "reason": "loading weights, 40 %", "engines": []}, 503)

    # WebSocket

    async def socket(self, socket: WebSocket) -> None:
        await socket.accept()
        self.sockets.add(socket)
        tasks: set[asyncio.Task[None]] = set()
        try:
            if self.key is not None and (await socket.receive_json()) != {"type": "auth", "token": self.key}:
                await socket.close(NO_KEY)
                return
            while True:
                frame = await socket.receive_json()
                self.frames.append(frame)
                if not self.deaf or frame["type"].startswith("conversation."):
                    task = asyncio.create_task(self._take(socket, frame))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            self.sockets.discard(socket)
            for task in tasks:
                task.cancel()

    async def _take(self, socket: WebSocket, frame: dict[str, Any]) -> None:
        lane = frame.get("stream_id")
        if frame["type"] == "response.cancel":
            self.tapes[frame["response_id"]].stop = True
        elif frame["type"] == "conversation.subscribe":
            await self._tell(socket, frame["conversation_id"], lane)
        elif frame["type"] == "response.create" and self.refuse:
            refusal, self.refuse = self.refuse, None
            await socket.send_json({"type": "error", "stream_id": lane, **refusal})
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

    async def _tell(self, socket: WebSocket, conversation: str, lane: str | None) -> None:
        """Say how a conversation stands, again after each change. One that was left is told of all the same."""
        bell, loop, tree = asyncio.Event(), asyncio.get_running_loop(), self.trees[conversation]
        tree.bells.append(lambda: loop.call_soon_threadsafe(bell.set))
        while conversation in self.trees:
            bell.clear()
            changed = {"type": "conversation.changed", "conversation": tree.told(), "stream_id": lane}
            await socket.send_json(changed)
            await bell.wait()
        await socket.send_json({"type": "conversation.deleted", "conversation_id": conversation})

    def _begin(self, frame: dict[str, Any]) -> Tape:
        key = frame["idempotency_key"]
        if key in self.keys:
            return self.tapes[self.keys[key]]
        tree, parent, text, carried = self._place(frame)
        item = message("assistant", "", "resp_" + secrets.token_hex(8))
        response = {
            "id": item["response_id"],
            "object": "response",
            "status": "queued",
            "model": "deepseek-tiny",
            "output": [],
            "parent": parent,
            "item_id": item["id"],
        }
        self.keys[key] = response["id"]
        tape = self.tapes[response["id"]] = Tape(response, Script.of(text), lambda: self.held)
        tree.running.append({"response_id": response["id"], "item_id": item["id"], "parent": parent})
        tree.ring()
        answer = self.answer or _words(text, tape.script.words)
        task = asyncio.create_task(play(tape, tree, item, answer, carried))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return tape

    def _place(self, frame: dict[str, Any]) -> tuple[Tree, str | None, str, str]:
        """Where an answer goes: its tree, the item that it answers, that one's text, what it begins with."""
        if "continue" in frame:
            earlier = self.tapes[frame["continue"]].response
            tree = next(it for it in self.trees.values() if earlier["item_id"] in it.items)
            return tree, earlier["parent"], "and on", earlier["output"][-1]["content"][0]["text"]
        tree, parent, text = (
            self.trees[frame["conversation"]["id"]],
            frame["conversation"]["parent"],
            frame["input"],
        )
        if text:
            tree.title = tree.title or text.split("\n")[0][:60]
            parent = tree.add(message("user", text), parent)["id"]
        tree.head = parent
        return tree, parent, tree.items[parent]["content"][0]["text"], ""

    async def _follow(self, socket: WebSocket, tape: Tape, after: int, lane: str | None) -> None:
        deltas = 0
        async for event in tape.follow():
            if event["sequence_number"] <= after and event["type"] != "response.queue_position":
                continue
            await socket.send_json({**event, "stream_id": lane})
            deltas += event["type"] == "response.output_text.delta"
            if deltas == tape.script.drop and not tape.dropped:
                tape.dropped = True
                await socket.close(COME_BACK)
                return


def _words(text: str, count: int) -> str:
    return " ".join(f"word{index}" for index in range(count)) + f"\n\nYou said: {text}"


def _parts(item: Item) -> list[Item]:
    """An answer with reasoning is listed as two items."""
    thoughts = item.get("thoughts")
    shown = {name: value for name, value in item.items() if name != "thoughts"}
    if not thoughts:
        return [shown]
    beside = {name: shown[name] for name in ("siblings", "children", "parent") if name in shown}
    return [{**thoughts, **beside}, {**shown, "parent": thoughts["id"]}]


def _page(data: list[dict[str, Any]], more: bool) -> dict[str, Any]:
    first, last = (data[0]["id"], data[-1]["id"]) if data else ("", "")
    return {"object": "list", "data": data, "has_more": more, "first_id": first, "last_id": last}


def _error(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message, "type": "x", "param": None}}, status)
