"""Many answers on one socket: the SDK's connection, lanes, attaching, stopping, keys, origins, slow readers."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from chatserver.service.web import follower, waiting
from chatserver.transports import frame_socket, lanes, websocket
from tests.chatserver.transports.conftest import running_web
from tests.fakes import MODEL, MemoryStore

ANSWER = "".join(f"w{i} " for i in range(20))


@asynccontextmanager
async def socket_to(web, **options):
    options = {"max_size": None, "compression": None, "open_timeout": 60} | options
    async with connect(web.url.replace("http", "ws") + "/v1/responses", **options) as socket:
        yield socket


def narrow(web) -> socket.socket:
    """A connection whose receive buffer is small."""
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    narrow.connect(("127.0.0.1", int(web.url.rpartition(":")[2])))
    return narrow


async def send(socket, **frame) -> None:
    await socket.send(json.dumps(frame))


async def receive(socket) -> dict:
    async with asyncio.timeout(60):
        return json.loads(await socket.recv())


async def until(socket, kind: str) -> list[dict]:
    events = []
    while not events or events[-1]["type"] != kind:
        events.append(await receive(socket))
    return events


def text_of(events) -> str:
    return "".join(event.get("delta", "") for event in events)


@pytest.fixture
async def keyed():
    """A web role with keys, in memory."""
    store = MemoryStore()
    store.known_models.append(MODEL)
    async with running_web(store, api_keys=(("acme", "acme-secret"), ("other", "other-secret"))) as web:
        yield web


async def test_the_sdk_connects(web):
    async with web.sdk().responses.connect() as connection:
        await connection.response.create(model="tiny", input="Hello")
        events = []
        async for event in connection:
            events.append(event)
            if event.type == "response.completed":
                break
        assert text_of([e.to_dict() for e in events]) == ANSWER
        assert events[-1].response.output_text == ANSWER
        await connection.response.create(model="nope", input="Hello")
        error = await connection.recv()
        assert error.type == "error" and error.status == 404 and error.error.code == "model_not_found"


async def test_lanes_are_parallel_and_each_is_in_order(web):
    async with socket_to(web) as socket:
        for lane in ("a", "a", "b"):
            await send(socket, type="response.create", model="tiny", input=f"for {lane}", stream_id=lane)
        ends, events = 0, []
        while ends < 3:
            events.append(await receive(socket))
            ends += events[-1]["type"] == "response.completed"
        for lane, answers in (("a", 2), ("b", 1)):
            mine = [event for event in events if event["stream_id"] == lane]
            assert text_of(mine) == ANSWER * answers
            types = [e["type"] for e in mine if e["type"] in ("response.created", "response.completed")]
            assert types == ["response.created", "response.completed"] * answers


async def test_attach_cancel_and_errors(web):
    web.engine.write.clear()
    async with socket_to(web) as first, socket_to(web) as second:
        await send(first, type="response.create", model="tiny", input="Hello")
        events = await until(first, "response.output_text.delta")
        response_id = events[0]["response"]["id"]
        await send(second, type="response.attach", response_id=response_id, starting_after=3, stream_id="x")
        assert (await receive(second))["type"] == "response.content_part.added"
        await send(second, type="response.cancel", response_id=response_id, stream_id="c")
        rest = await until(second, "response.cancel.accepted")
        web.engine.write.set()
        rest += await until(second, "response.incomplete")
        assert rest[-1]["response"]["status"] == "cancelled"
        accepted = [event for event in rest if event["type"] == "response.cancel.accepted"]
        assert accepted[0]["response"]["id"] == response_id and accepted[0]["stream_id"] == "c"
        assert text_of(events + await until(first, "response.incomplete")) == text_of(rest)
        for frame, param in (
            ({"type": "response.attach", "response_id": "resp_x"}, "response_id"),
            (
                {"type": "response.attach", "response_id": response_id, "starting_after": 9999},
                "starting_after",
            ),
            ({"type": "response.create", "input": 5}, "input"),
            ({"type": "response.create", "input": "x", "stream_id": 5}, "stream_id"),
            ({"type": "conversation.subscribe", "conversation_id": "c"}, "conversation_id"),
            ({"type": "response.steer"}, "type"),
            ({"type": "nonsense"}, "type"),
        ):
            await send(second, **frame)
            error = await receive(second)
            assert error["type"] == "error" and error["error"]["param"] == param, error
            assert set(error["error"]) == {"message", "type", "param", "code"}
        await second.send("{not json")
        assert (await receive(second))["error"]["code"] == "invalid_json"


async def test_idempotency_key_in_the_frame(web):
    async with socket_to(web) as socket:
        frame = {"type": "response.create", "model": "tiny", "input": "Hello", "idempotency_key": "k"}
        await send(socket, **frame, stream_id="1")
        one = await until(socket, "response.completed")
        await send(socket, **frame, stream_id="2")
        two = await until(socket, "response.completed")
    assert one[0]["response"]["id"] == two[0]["response"]["id"] and text_of(two) == ANSWER


async def test_a_lost_socket_does_not_stop_and_another_resumes(web):
    web.engine.write.clear()
    async with socket_to(web) as socket:
        await send(socket, type="response.create", model="tiny", input="Hello")
        seen = await until(socket, "response.output_text.delta")
    web.engine.write.set()
    async with socket_to(web) as socket:
        after = seen[-1]["sequence_number"]
        await send(
            socket, type="response.attach", response_id=seen[0]["response"]["id"], starting_after=after
        )
        rest = await until(socket, "response.completed")
    assert text_of(seen + rest) == ANSWER


async def test_bounds_on_lanes_and_queues(web):
    web.engine.write.clear()
    async with socket_to(web) as socket:
        for _ in range(lanes.MAX_QUEUED + 1):
            await send(socket, type="response.create", model="tiny", input="Hello", stream_id="one")
        error = await until(socket, "error")
        assert error[-1]["status"] == 429 and error[-1]["stream_id"] == "one"
        for lane in range(lanes.MAX_LANES):
            await send(socket, type="response.create", model="tiny", input="Hello", stream_id=str(lane))
        while (await receive(socket))["type"] != "error":
            pass
        socket.transport.abort()  # a goodbye would wait for all that was sent
    web.engine.write.set()


async def test_too_many_bad_frames_end_the_connection(web):
    async with socket_to(web) as socket:
        for _ in range(websocket.MAX_BAD_FRAMES):
            await socket.send("?")
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await receive(socket)
    assert closed.value.rcvd.code == 4500


async def test_first_message_brings_the_key(keyed):
    async with socket_to(keyed) as socket:
        await send(socket, type="auth", token="acme-secret")
        assert await receive(socket) == {"type": "auth.accepted"}
        await send(socket, type="response.create", model="tiny", input="Hello")
        assert text_of(await until(socket, "response.completed")) == ANSWER


async def test_header_and_subprotocol_bring_the_key(keyed):
    async with socket_to(keyed, additional_headers={"Authorization": "Bearer acme-secret"}) as socket:
        await send(socket, type="response.create", model="tiny", input="Hello")
        response_id = (await until(socket, "response.completed"))[0]["response"]["id"]
    protocols = ["realtime", "openai-insecure-api-key.other-secret"]
    async with socket_to(keyed, subprotocols=protocols) as socket:
        assert socket.subprotocol == "realtime"
        await send(socket, type="response.attach", response_id=response_id)
        assert (await receive(socket))["status"] == 404  # another tenant's


@pytest.mark.parametrize(
    "frame", [{"type": "auth", "token": "wrong"}, {"type": "response.create", "input": "x"}, None]
)
async def test_no_key_no_entry(keyed, frame, monkeypatch):
    monkeypatch.setattr(websocket, "AUTH_TIMEOUT", 0.05)
    async with socket_to(keyed) as socket:
        if frame:
            await send(socket, **frame)
        assert (await receive(socket))["status"] == 401
        with pytest.raises(ConnectionClosed) as closed:
            await receive(socket)
    assert closed.value.rcvd.code == 4501


async def test_foreign_origin(web):
    async with socket_to(web, origin="https://evil.example") as socket:
        assert (await receive(socket))["error"]["code"] == "origin_not_allowed"
        with pytest.raises(ConnectionClosed) as closed:
            await receive(socket)
        assert closed.value.rcvd.code == 4503
    async with socket_to(web, origin=web.url) as socket:
        await send(socket, type="response.create", model="tiny", input="Hello")
        await until(socket, "response.completed")


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/models", "/", "/%0d%0a%c3%a9"])
async def test_a_handshake_elsewhere_is_a_404_in_our_form(memory, path, caplog):
    """Also where HTTP has something; the connection ends with it, and the process serves on, silently."""
    with pytest.raises(InvalidStatus) as refused:
        async with connect(memory.url.replace("http", "ws") + path):
            pass
    answer = refused.value.response
    assert answer.status_code == 404 and answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_") and answer.headers["connection"] == "close"
    error = json.loads(answer.body)["error"]
    assert error["code"] == "unknown_url" and "/v1/responses" in error["message"] and error["param"] is None
    assert (await memory.http().get("/livez")).status_code == 200
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_reader_that_never_reads_is_sent_away_and_harms_nobody(monkeypatch):
    """The bound is passed in memory while its socket is full; neighbours and the engine go on, and it resumes."""
    monkeypatch.setattr(follower, "MAX_TEXT", 100_000)
    monkeypatch.setattr(frame_socket, "SEND_TIMEOUT", 0.5)
    monkeypatch.setattr(frame_socket, "CLOSE_TIMEOUT", 0.5)
    store = MemoryStore()
    async with running_web(store) as web:
        web.engine.answer = [f"{i:>7} " * 500 for i in range(3000)]  # 12 MB
        web.engine.step, web.engine.pause = 5, 0.0001
        while not store.known_models:
            await asyncio.sleep(0.005)
        async with (
            socket_to(web, max_queue=1, sock=narrow(web)) as stuck,
            socket_to(web, max_queue=None) as healthy,
        ):
            await send(stuck, type="response.create", model="tiny", input="Hello")
            first = await until(stuck, "response.output_text.delta")
            response_id = first[0]["response"]["id"]
            await send(healthy, type="response.attach", response_id=response_id)
            assert text_of(await until(healthy, "response.completed")) == "".join(web.engine.answer)
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    first.append(await receive(stuck))
        code = closed.value.rcvd.code if closed.value.rcvd else 1006
        assert code in (1013, 1006) and first[-1]["type"] != "response.completed"
        async with socket_to(web, max_queue=None) as again:
            after = first[-1]["sequence_number"]
            await send(again, type="response.attach", response_id=response_id, starting_after=after)
            rest = await until(again, "response.completed")
        assert text_of(first + rest) == "".join(web.engine.answer)


async def test_waiting_answers_tell_their_place_at_every_door(web, monkeypatch):
    """While no engine takes the job: frames without a number on WebSocket, comment lines in SSE."""
    monkeypatch.setattr(waiting, "INTERVAL", 0.02)
    await web.engine.rest()
    async with socket_to(web) as socket, web.http() as client:
        await send(socket, type="response.create", model="tiny", input="Hello")
        told = await until(socket, "response.queued")
        told.append(await receive(socket))
        place = {"type": "response.queue_position", "response_id": told[0]["response"]["id"], "position": 1}
        assert told[-1] == place
        path = f"/v1/responses/{told[0]['response']['id']}"
        resumed = {"stream": "true", "starting_after": "1"}
        async with client.stream("GET", path, params=resumed) as answer:
            lines = answer.aiter_lines()
            while not (line := await anext(lines)).startswith(": queue position "):
                assert not line.startswith("data:"), line  # only what opens the buffers of proxies, and pings
            assert line == ": queue position 1"
        ask = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        monkeypatch.setattr(web.chat.opening.__func__, "__kwdefaults__", {"patience": 0.01})
        async with client.stream("POST", "/v1/chat/completions", json=ask) as answer:
            assert (await anext(answer.aiter_lines())).startswith(": queue position ")
        web.engine.go.set()
        assert text_of(await until(socket, "response.completed")) == ANSWER


async def test_a_restart_closes_with_come_back(web):
    web.engine.write.clear()
    async with socket_to(web) as socket:
        await send(socket, type="response.create", model="tiny", input="Hello")
        await until(socket, "response.output_text.delta")
        web.hub.dismiss("restarting")
        assert (await until(socket, "error"))[-1]["error"]["code"] == "server_restarting"
        with pytest.raises(ConnectionClosed) as closed:
            await receive(socket)
    assert closed.value.rcvd.code == 1012
    web.engine.write.set()


async def test_each_attach_asks_again_who_may_read(keyed):
    """Another tenant's key opens neither door of an answer that runs; ids are nowhere listed to it, nor guessable."""
    keyed.engine.write.clear()
    mine, theirs = ({"Authorization": f"Bearer {tenant}-secret"} for tenant in ("acme", "other"))
    async with socket_to(keyed, additional_headers=mine) as owner, keyed.http() as client:
        await send(owner, type="response.create", model="tiny", input="Hello")
        response = (await until(owner, "response.output_text.delta"))[0]["response"]
        path = f"/v1/responses/{response['id']}"
        stream = {"stream": "true", "starting_after": "0"}
        for headers, status in ((theirs, 404), ({}, 401), ({"Authorization": "Bearer guess-guess"}, 401)):
            assert (await client.get(path, params=stream, headers=headers)).status_code == status
            assert (await client.post(f"{path}/cancel", headers=headers)).status_code == status
        async with socket_to(keyed, additional_headers=theirs) as stranger:
            for kind in ("response.attach", "response.cancel"):
                await send(stranger, type=kind, response_id=response["id"])
                assert (await receive(stranger))["status"] == 404
        listed = await client.get("/v1/conversations", headers=theirs)
        assert listed.json()["data"] == []
        assert (await client.get("/v1/responses", headers=mine)).status_code in (404, 405)
        keyed.engine.write.set()
        await until(owner, "response.completed")
