"""Answers that come by and by: server-sent events, and the blank lines before a JSON answer that takes long."""

from __future__ import annotations

import asyncio
import json
import re
import socket

import pytest

from chatserver.service.web import follower
from chatserver.transports import sse
from chatserver.transports.sending import Sending
from tests.chatserver.transports.reading import error_of, parse_sse

ANSWER = "".join(f"w{i} " for i in range(20))

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}


async def test_chat_stream_has_only_unnamed_data(memory):
    response = await memory.http().post("/chat/completions", json=CHAT | {"stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache, no-transform"
    assert response.headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in response.headers
    events = parse_sse(response.text)
    assert all(set(event) == {"data"} for event in events) and events[-1]["data"] == "[DONE]"
    assert response.text.count("[DONE]") == 1


async def test_response_stream_has_ids_names_and_padding(memory):
    response = await memory.http().post("/v1/responses", json={"input": "Hi", "stream": True})
    assert response.text.startswith(":") and len(response.text.split("\n")[0]) >= 512
    events = parse_sse(response.text)
    for event in events:
        data = json.loads(event["data"])
        assert event["event"] == data["type"] and event["id"] == str(data["sequence_number"])


def go_on_after_pings(count: int, engine, monkeypatch) -> None:
    """Hold answers after their first commit, until so many pings were sent."""
    engine.write.clear()
    left, send = [None] * count, Sending._send_ping

    async def counted(sending) -> None:
        await send(sending)
        left.pop()
        if not left:
            engine.write.set()
            monkeypatch.setattr(Sending, "_send_ping", send)

    monkeypatch.setattr(Sending, "_send_ping", counted)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_pings_are_bare_comment_lines_and_harmless(memory, monkeypatch, path):
    """A blank line after a comment kills the SDK once it has seen an id."""
    monkeypatch.setattr(sse, "PING", 0.02)
    go_on_after_pings(8, memory.engine, monkeypatch)
    body = CHAT if "chat" in path else {"input": "Hi"}
    response = await memory.http().post(path, json=body | {"stream": True})
    assert response.text.split("\n").count(": ping") > 3 and ": ping\n\n" not in response.text
    assert parse_sse(response.text)
    go_on_after_pings(8, memory.engine, monkeypatch)
    client = memory.sdk()
    if "chat" in path:
        stream = await client.chat.completions.create(**CHAT, stream=True)
        assert "".join([c.choices[0].delta.content or "" async for c in stream]) == ANSWER
    else:
        events = [e async for e in await client.responses.create(input="Hi", stream=True)]
        assert events[-1].response.output_text == ANSWER


async def after_blank_lines(memory, path: str, body: dict) -> dict:
    """Return the JSON answer to a request that is held until two blank lines have come before it."""
    memory.engine.write.clear()
    async with memory.http().stream("POST", path, json=body) as response:
        assert response.status_code == 200
        text = ""
        async for part in response.aiter_text():
            text += part
            if text == "\n\n":
                memory.engine.write.set()
    assert text.startswith("\n\n")
    return json.loads(text)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_blank_lines_before_a_slow_json_answer(memory, monkeypatch, path):
    monkeypatch.setattr(sse, "PING", 0.05)
    slow = await after_blank_lines(memory, path, CHAT if "chat" in path else {"input": "Hi"})
    assert ANSWER in json.dumps(slow)
    failing = [{"role": "user", "content": "FAIL"}]
    body = {"model": "tiny", "messages": failing} if "chat" in path else {"input": failing}
    failed = await after_blank_lines(memory, path, body)
    assert failed["error"]["message"] == "the engine was lost"


async def test_last_event_id_wins_and_204_ends(memory):
    http = memory.http()
    whole = (await http.post("/v1/responses", json={"input": "Hi"})).json()
    url = f"/v1/responses/{whole['id']}?stream=true&starting_after=3"
    full = parse_sse((await http.get(url)).text)
    assert full[0]["id"] == "4"
    rest = parse_sse((await http.get(url, headers={"Last-Event-ID": "25"})).text)
    assert [event["id"] for event in rest] == ["26", "27", "28"]
    done = await http.get(url, headers={"Last-Event-ID": "28"})
    assert done.status_code == 204 and done.content == b""
    for wrong in ("99", "x", "-1", "٣", "0" * 20 + "99", "0" * 20 + "9" * 5000):
        response = await http.get(
            f"/v1/responses/{whole['id']}", params={"stream": "true", "starting_after": wrong}
        )
        assert response.status_code == 400 and error_of(response)["param"] == "starting_after"


async def test_attach_before_the_first_token(memory):
    """Refresh while the answer is queued: the reader waits and then gets all of it."""
    await memory.engine.rest()
    http = memory.http()
    created = (await http.post("/v1/responses", json={"input": "Hi", "background": True})).json()
    reading = asyncio.create_task(http.get(f"/v1/responses/{created['id']}?stream=true"))
    async with asyncio.timeout(60):
        while not memory.hub.following:
            await asyncio.sleep(0.005)
    memory.engine.go.set()
    events = parse_sse((await reading).text)
    assert events[0]["id"] == "0" and events[-1]["event"] == "response.completed"


async def test_an_sse_reader_that_never_reads_is_given_up_and_resumes(memory, monkeypatch):
    monkeypatch.setattr(sse, "SEND_TIMEOUT", 0.3)
    monkeypatch.setattr(follower, "MAX_TEXT", 100_000)
    memory.engine.answer = [f"{i:>7} " * 500 for i in range(1000)]  # 4 MB
    memory.engine.step, memory.engine.pause = 5, 0.0001
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    stuck.connect(("127.0.0.1", int(memory.url.rpartition(":")[2])))
    body = b'{"input":"Hi","stream":true}'
    stuck.sendall(
        b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    async with asyncio.timeout(60):
        while not (stored := [r for r in memory.store.all_responses.values() if r.outcome]):
            await asyncio.sleep(0.01)
        while memory.hub.following:
            await asyncio.sleep(0.01)
    seen = b""
    stuck.settimeout(60)
    while chunk := await asyncio.to_thread(stuck.recv, 1_000_000):
        seen += chunk
    stuck.close()
    last = max(map(int, re.findall(rb"\nid: (\d+)\ndata: [^\n]*\n\n", seen)))
    assert last < stored[0].outcome.usage.output
    monkeypatch.setattr(sse, "SEND_TIMEOUT", 60.0)  # this one reads, however busy the machine
    client = memory.sdk()
    rest = [e async for e in await client.responses.retrieve(stored[0].id, stream=True, starting_after=last)]
    assert rest[0].sequence_number > last and rest[-1].type == "response.completed"


async def test_restart_lets_streams_go_and_whole_answers_stay(memory):
    memory.engine.write.clear()
    client = memory.sdk()
    whole = asyncio.create_task(client.responses.create(input="Hi"))
    async with asyncio.timeout(60):
        while not memory.hub.following:
            await asyncio.sleep(0.005)
    stream = await client.responses.create(input="Hi", stream=True)
    events = []
    async for event in stream:
        events.append(event)
        if event.type == "response.output_text.delta":
            memory.hub.dismiss("restarting")
    assert events[-1].type == "error" and events[-1].code == "server_restarting"
    response_id = events[0].response.id
    http = memory.http()
    for refused in (
        await http.get(f"/v1/responses/{response_id}?stream=true"),
        await http.post("/v1/responses", json={"input": "Hi"}),
        await http.post("/v1/chat/completions", json=CHAT),
    ):
        assert refused.status_code == 503 and error_of(refused)["code"] == "server_restarting"
        assert refused.headers["connection"] == "close" and refused.headers["retry-after-ms"] == "500"
    memory.engine.write.set()
    assert (await whole).output_text == ANSWER
