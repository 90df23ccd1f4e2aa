"""What ends the official SDK on a stream, and that no stream of ours has it.

The first test shows the traps on the SDK itself, so that one that is mended there can go here.
"""

from __future__ import annotations

import gzip
import json
from itertools import pairwise

import httpx
import openai
import pytest

from chatserver.transports import sse

CHUNK = json.dumps(
    {
        "id": "chatcmpl_1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}],
    }
)
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def read(stream: str) -> str:
    """What the SDK makes of a stream."""
    answer = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=stream.encode())
    transport = httpx.MockTransport(lambda _: answer)
    with openai.OpenAI(
        api_key="x", base_url="http://x", http_client=httpx.Client(transport=transport)
    ) as client:
        chunks = client.chat.completions.create(**CHAT, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


@pytest.mark.parametrize(
    ("between", "harmless"),
    [
        (": ping\n", True),
        (": ping\n\n", True),
        ("id: 1\ndata: " + CHUNK + "\n\n: ping\n\n", False),
        ("retry: 1000\n\n", False),
    ],
    ids=[
        "a bare comment line",
        "a comment block without ids",
        "a comment block behind an id",
        "a lone retry",
    ],
)
def test_the_traps_are_there(between, harmless):
    """A comment line harms nobody; a blank line behind it, once there was an id, is taken for an event without data."""
    stream = f"data: {CHUNK}\n\n{between}data: {CHUNK}\n\ndata: [DONE]\n\n"
    if harmless:
        assert read(stream) == "HiHi"
    else:
        with pytest.raises(json.JSONDecodeError):
            read(stream)


@pytest.fixture(scope="module")
def streams(program) -> dict[str, httpx.Response]:
    """One stream of each kind."""
    ask = {"input": "Hello there", "max_output_tokens": 30}
    headers = {"Accept-Encoding": "gzip, br"}
    with httpx.Client(base_url=program.url, headers=headers, timeout=30) as http:
        chat = {
            **CHAT,
            "model": "scripted",
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": 9,
        }
        found = {
            "chat": http.post("/v1/chat/completions", json=chat),
            "choices": http.post("/v1/chat/completions", json=chat | {"n": 2}),
            "responses": http.post("/v1/responses", json=ask | {"stream": True}),
        }
        name = http.post("/v1/responses", json=ask).json()["id"]
        return found | {"replay": http.get(f"/v1/responses/{name}?stream=true")}


def test_no_stream_of_ours_has_one(streams):
    """No `retry:`; no blank line behind a comment; on Chat Completions unnamed data and nothing else."""
    for kind, answer in streams.items():
        lines = answer.text.split("\n")
        assert not [line for line in lines if line.startswith("retry")], kind
        assert not [one for one, two in pairwise(lines) if one.startswith(":") and not two], kind
        if kind in ("chat", "choices"):
            assert {line.partition(":")[0] for line in lines if line} == {"data"}
            assert answer.text.endswith("data: [DONE]\n\n") and answer.text.count("[DONE]") == 1


def test_streams_reach_phones(streams):
    """Padding against buffers, a ping within 10 s, no compression and no cache on the way, an end before the close."""
    assert sse.PING <= 10
    for kind, answer in streams.items():
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-cache, no-transform"
        assert answer.headers["x-accel-buffering"] == "no" and "content-encoding" not in answer.headers
        assert not answer.content.startswith(gzip.compress(b"")[:2])
        if kind in ("responses", "replay"):
            assert answer.text.startswith(":") and len(answer.text.partition("\n")[0]) >= 512
            events = [block for block in answer.text.split("\n\n") if "event:" in block]
            assert "event: response.incomplete" in events[-1] or "event: response.completed" in events[-1]


def test_chunks_of_one_answer(streams):
    """One id and one time on all, the role once, `usage` null but on the last, which has no choice."""
    chunks = [json.loads(line[6:]) for line in streams["chat"].text.split("\n") if line.startswith("data: {")]
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1
    assert ["role" in c["choices"][0]["delta"] for c in chunks[:-1]] == [True] + [False] * (len(chunks) - 2)
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["total_tokens"] > 0
    assert [c["choices"][0]["finish_reason"] for c in chunks[:-1]] == [None] * (len(chunks) - 2) + ["length"]
