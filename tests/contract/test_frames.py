"""Frames that nobody would send: each is answered in words, or the socket closes with a code of ours; nothing leaks."""

from __future__ import annotations

import asyncio
import json

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=10,
)
KINDS = (
    "response.create",
    "response.attach",
    "response.cancel",
    "conversation.subscribe",
    "conversation.unsubscribe",
    "input.typing",
    "auth",
    "error",
)
NAMES = (
    "stream_id",
    "idempotency_key",
    "response_id",
    "starting_after",
    "conversation_id",
    "conversation",
    "input",
    "model",
    "previous_response_id",
    "max_output_tokens",
    "store",
    "metadata",
    "truncation",
    "token",
)
FRAMES = st.one_of(
    st.builds(
        lambda kind, fields: json.dumps({"type": kind} | fields),
        st.sampled_from(KINDS) | VALUES,
        st.dictionaries(st.sampled_from(NAMES), VALUES | st.just("Hello") | st.just(5), max_size=5),
    ),
    VALUES.map(json.dumps),
    st.text(max_size=60),
    st.binary(max_size=60),
)
OURS = {1000, 1008, 1009, 1011, 1012, 1013, *range(4400, 4600)}


async def converse(url: str, frames: list[str | bytes]) -> None:
    """Send frames; every answer is an event or an error in the nested form."""
    async with connect(url, compression=None, open_timeout=60) as socket:
        try:
            for frame in frames:
                await socket.send(frame)
            await socket.send(json.dumps({"type": "response.cancel", "response_id": "the end"}))
            while True:
                event = json.loads(await asyncio.wait_for(socket.recv(), 60))
                assert isinstance(event["type"], str), event
                if event["type"] == "error":
                    assert set(event["error"]) >= {"message", "type", "param", "code"}, event
                    assert 400 <= event["status"] < 500, event
                    if "the end" in event["error"]["message"]:
                        return
        except ConnectionClosed as closed:
            assert closed.rcvd is not None and closed.rcvd.code in OURS, closed


@pytest.fixture(scope="module")
def before(program) -> tuple[int, int]:
    """Open files and memory of the web process after some use."""
    url = f"{program.url.replace('http', 'ws')}/v1/responses"
    asyncio.run(converse(url, ['{"type":"response.create","input":"Hi","max_output_tokens":3}'] * 3))
    return held(program)


def held(program) -> tuple[int, int]:
    web = psutil.Process(program.pid("web"))
    return web.num_fds(), web.memory_info().rss


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(frames=st.lists(FRAMES, min_size=1, max_size=40))
def test_any_frames(program, before, frames):
    """Each gets its answer, or the connection ends with a code that says what to do."""
    asyncio.run(converse(f"{program.url.replace('http', 'ws')}/v1/responses", frames))


def test_nothing_is_left_of_them(program, before):
    """The same process still serves; no socket stays open, no traceback was logged, memory is as before."""
    files, memory = held(program)
    assert files <= before[0] + 4 and memory < before[1] + 50_000_000, (before, files, memory)
    logs = [log.read_text(errors="replace") for log in (program.data_dir / "logs").glob("*.log")]
    assert logs and "Traceback" not in "".join(logs)
