"""Faults at speed: the whole program with the scripted engine, killed and restarted at any moment."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time

import httpx
import openai
import pytest

from tests.e2e.conftest import client_of
from tests.program import ROOT, Program

pytestmark = pytest.mark.e2e

ROUNDS = 10
ASK = {"model": "scripted", "input": "Tell me about tides.", "temperature": 0, "max_output_tokens": 80}


@pytest.fixture(scope="module")
def expected(scripted) -> str:
    """The undisturbed answer."""
    return client_of(scripted).responses.create(**ASK, extra_body={"ignore_eos": True}).output_text


def read(stream, on_delta=None):
    """Return the text, the positions and the last event of a stream."""
    text, positions, count, event = "", [], 0, None
    for event in stream:
        positions.append(event.sequence_number)
        if event.type == "response.output_text.delta":
            text, count = text + event.delta, count + 1
            if on_delta:
                on_delta(count, event)
    return text, positions, event


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_engine_killed_in_mid_answer(scripted, expected, round_):
    """SIGKILL of the engine at a random token: the same stream brings the same whole answer, ten times out of ten."""
    client = client_of(scripted)
    at = random.Random(round_).randrange(1, 40)

    def kill(count, _event):
        if count == at:
            scripted.kill("engine")

    stream = client.responses.create(**ASK, extra_body={"ignore_eos": True}, stream=True)
    text, positions, last = read(stream, kill)
    assert last.type == "response.incomplete", (last, scripted.tail())
    assert text == expected == last.response.output_text
    assert positions == sorted(set(positions))
    assert last.response.usage.output_tokens == 80


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_web_killed_in_mid_answer(scripted, expected, round_):
    """SIGKILL of web at a random token: reconnecting with the position gives exactly the rest, ten times out of ten."""
    client = client_of(scripted)
    at = random.Random(round_).randrange(1, 40)
    text, position, response_id, killed = "", -1, "", 0
    try:
        for event in client.responses.create(**ASK, extra_body={"ignore_eos": True}, stream=True):
            position = event.sequence_number
            if event.type == "response.created":
                response_id = event.response.id
            if event.type == "response.output_text.delta":
                text += event.delta
                if position >= at and not killed:
                    killed = scripted.kill("web")
    except (openai.APIError, httpx.HTTPError):
        pass
    assert killed
    scripted.wait_replaced("web", killed)
    rest, _, last = read(client.responses.retrieve(response_id, stream=True, starting_after=position))
    assert text + rest == expected == last.response.output_text


def test_store_killed_in_mid_answer(scripted, expected):
    """SIGKILL of the store in mid-answer: what was acknowledged is on disk, and the answer comes whole."""
    client = client_of(scripted)
    created = client.responses.create(**ASK, extra_body={"ignore_eos": True}, background=True)
    time.sleep(0.5)
    old = scripted.kill("store")
    scripted.wait_replaced("store", old)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            found = client.responses.retrieve(created.id)
            if found.status not in ("queued", "in_progress"):
                break
        except openai.APIStatusError as error:
            assert error.status_code == 503
        time.sleep(0.2)
    assert found.output_text == expected


def test_conversations_survive_a_restart_of_everything(tmp_path):
    """Ctrl-C ends every process cleanly; the next start finds the conversation and continues it."""
    with Program(tmp_path / "data", model="scripted") as program:
        program.wait_ready()
        client = client_of(program)
        conversation = client.conversations.create(metadata={"topic": "tides"})
        first = client.responses.create(
            model="scripted", conversation=conversation.id, input="Hi", max_output_tokens=20
        )
        pids = [program.pid(role) for role in ("store", "engine", "web")]
        assert program.stop() == 0
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
    with Program(tmp_path / "data", model="scripted") as program:
        program.wait_ready()
        client = client_of(program)
        assert client.conversations.retrieve(conversation.id).metadata == {"topic": "tides"}
        assert client.responses.retrieve(first.id).output_text == first.output_text
        client.responses.create(
            model="scripted", conversation=conversation.id, input="More", max_output_tokens=20
        )
        items = client.conversations.items.list(conversation.id, order="asc").data
        assert [item.role for item in items] == ["user", "assistant", "user", "assistant"]


def test_sigterm_of_web_tells_readers_to_come_back(scripted, expected):
    """A web process that is told to end lets its readers go with a hint, and the answer goes on."""
    client = client_of(scripted)
    state = {"text": "", "position": -1, "id": ""}

    def term(count, event):
        state["text"] += event.delta
        state["position"] = event.sequence_number
        if count == 10:
            scripted.kill("web", signal.SIGTERM)

    try:
        stream = client.responses.create(**ASK, extra_body={"ignore_eos": True}, stream=True)
        for event in stream:
            if event.type == "response.created":
                state["id"] = event.response.id
                break
        read(stream, term)
    except (openai.APIError, httpx.HTTPError):
        pass
    rest, _, last = read(
        client.responses.retrieve(state["id"], stream=True, starting_after=state["position"])
    )
    assert state["text"] + rest == expected == last.response.output_text


def test_same_idempotency_key_is_one_generation(scripted):
    """Two POSTs with one key: the second attaches to the first."""
    client = client_of(scripted)
    key = {"Idempotency-Key": f"test-{time.time_ns()}"}
    first = client.responses.create(**ASK, extra_headers=key)
    second = client.responses.create(**ASK, extra_headers=key)
    assert first.id == second.id


def test_a_second_turn_on_a_busy_conversation_is_a_409(scripted):
    """Two turns at once on one conversation: the second is refused in words, nothing is mixed."""
    client = client_of(scripted).with_options(max_retries=0)
    conversation = client.conversations.create()
    ask = {"model": "scripted", "conversation": conversation.id, "input": "One", "max_output_tokens": 3000}
    running = client.responses.create(**ask, background=True, extra_body={"ignore_eos": True})
    with pytest.raises(openai.ConflictError):
        client.responses.create(**{**ask, "input": "Two"})
    client.responses.cancel(running.id)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "no-such-model"], "no-such-model"),
        (["--port", "99999999"], "port"),
        (["--data-dir", "/proc/nowhere"], "/proc/nowhere"),
        (["--redis-url", "redis://127.0.0.1:1"], "127.0.0.1:1"),
        (["--host", "0.0.0.0"], "CHATSERVER_API_KEYS"),
        (["--no-such-option"], "--no-such-option"),
    ],
)
def test_what_cannot_start_says_why_in_one_line(tmp_path, arguments, words):
    """Bad settings: one line that names the setting, a non-zero exit code, no traceback."""
    base = ["--data-dir", str(tmp_path / "data"), "--model", "scripted", "--port", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "chatserver", "serve", *base, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert len([line for line in done.stderr.splitlines() if line.startswith("chatserver:")]) == 1


def test_a_port_in_use_says_so(scripted, tmp_path):
    """The port of a running server: one line that says what to do."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "chatserver",
            "serve",
            "--port",
            str(scripted.port),
            "--model",
            "scripted",
            "--data-dir",
            str(tmp_path / "other"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert str(scripted.port) in done.stderr and "PORT" in done.stderr


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"{not json", 400, None),
        (b'{"model": "scripted"}', 400, "input"),
        (b'{"model": "scripted", "input": ""}', 400, "input"),
        (b'{"model": "scripted", "input": []}', 400, "input"),
        (b'{"model": "nope", "input": "hi"}', 404, "model"),
        (b'{"model": "scripted", "input": "hi", "conversation": "conv_nope"}', 404, "conversation"),
        (b'{"model": "scripted", "input": "hi", "temperature": "hot"}', 400, "temperature"),
        (b'{"model": "scripted", "input": "\\ud800"}', 400, "input"),
    ],
)
def test_bad_input_gets_an_openai_error_that_names_the_field(scripted, body, status, param):
    """Every malformed request: the right status, all four keys, the field."""
    response = httpx.post(
        f"{scripted.url}/v1/responses",
        content=body,
        headers={"content-type": "application/json"},
        timeout=60,
    )
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param), error
    assert set(error) == {"message", "type", "param", "code"}


async def test_fifty_answers_at_once_are_whole(scripted):
    """Fifty streams at once: every one ends complete, with positions strictly rising."""
    client = openai.AsyncOpenAI(base_url=f"{scripted.url}/v1", api_key="x", timeout=120)

    async def one(number: int) -> tuple[str, str]:
        text, last = "", -1
        stream = await client.responses.create(
            model="scripted",
            input=f"Question {number}",
            max_output_tokens=40,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        async for event in stream:
            assert event.sequence_number > last
            last = event.sequence_number
            if event.type == "response.output_text.delta":
                text += event.delta
        return text, event.response.output_text

    for streamed, stored in await asyncio.gather(*(one(n) for n in range(50))):
        assert streamed == stored != ""
