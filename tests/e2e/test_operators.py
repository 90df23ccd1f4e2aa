"""An operator's day: keys before the first start, a server that all can reach, revoking, logs without secrets."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from tests.program import ROOT, Program

pytestmark = pytest.mark.e2e

PRICES = """
currency = "EUR"
[models.scripted]
hit = 0.07
miss = 0.27
output = 1.10
"""
STATIC = "a-static-secret-of-the-team"


def chatserver(data_dir: Path, *arguments: str, code: int = 0) -> str:
    """Run a command of the operator; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "chatserver", *arguments, "--data-dir", str(data_dir)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_an_operators_day(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    prices = tmp_path / "prices.toml"
    prices.write_text(PRICES)
    refused = chatserver(data, "serve", "--host", "0.0.0.0", "--port", "0", "--model", "scripted", code=1)
    assert "keys are needed" in refused and refused.count("\n") == 1
    made = json.loads(
        chatserver(
            data,
            *(
                "keys",
                "create",
                "--json",
                "--tenant",
                "acme",
                "--name",
                "ci",
                "--requests-per-minute",
                "1000",
            ),
            *("--tokens-per-minute", "100000", "--concurrent", "2", "--monthly-spend", "2.50"),
        )
    )
    token = made["key"]
    public = {"CHATSERVER_HOST": "0.0.0.0", "CHATSERVER_PRICES": str(prices), "CHATSERVER_LOG_LEVEL": "debug"}
    fast = {"SCRIPTED_TOKENS_PER_SECOND": "500", "SCRIPTED_TTFT_MS": "1"}
    with Program(data, model="scripted", CHATSERVER_API_KEYS=f"team:{STATIC}", **public, **fast) as program:
        program.wait_ready()
        answer = _ask(program, token)
        assert answer.status_code == 200 and answer.json()["usage"]["cost"]["currency"] == "EUR"
        assert answer.headers["x-ratelimit-limit-requests"] == "1000"
        assert _ask(program, STATIC).status_code == 200
        assert _ask(program, "").status_code == 401
        _use_keys_everywhere(program, token)
        _kill_everything_in_mid_answer(program, token)
        listed = json.loads(chatserver(data, "keys", "list", "--json"))
        assert listed[0]["id"] == made["id"] and float(listed[0]["spent"]) > 0
        used = json.loads(chatserver(data, "usage", "--json", "--group-by", "key"))
        assert {row["tenant"] for row in used} == {"acme", "team"}
        chatserver(data, "keys", "limit", made["id"], "--requests-per-minute", "7", "--concurrent", "none")
        assert _ask(program, token).headers["x-ratelimit-limit-requests"] == "7"
        assert "2.50 a month" in chatserver(data, "keys", "list")
        chatserver(data, "keys", "revoke", made["id"])
        assert _ask(program, token).status_code == 401
        log = chatserver(data, "keys", "log")
        assert [line.split()[3] for line in log.splitlines()[1:]] == ["revoke", "limit", "create"]
        assert "revoked" in chatserver(data, "keys", "list") and "EUR" in chatserver(data, "usage")
    secret = token.rpartition("-")[2] if "-" not in token[20:] else token[20:]
    files = [
        path for path in (*data.rglob("*"), program.log) if path.is_file() and "models" not in path.parts
    ]
    assert len([path for path in files if path.suffix in (".log", ".aof")]) >= 3
    for path in files:
        content = path.read_bytes()
        assert secret.encode() not in content and STATIC.encode() not in content, path


def test_mistakes_are_one_line(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for arguments, expected in (
        (("keys", "create", "--tenant", "a b"), "--tenant: expected"),
        (("keys", "create", "--tenant", "a", "--scopes", "all"), "--scopes: expected"),
        (("keys", "create", "--tenant", "a", "--concurrent", "0"), "--concurrent: expected"),
        (("keys", "create", "--tenant", "a", "--monthly-spend", "-1"), "--monthly-spend: expected"),
        (("keys", "create", "--tenant", "a", "--expires", "soon"), "--expires: expected"),
        (("keys", "limit", "key_0"), "expected one of --requests-per-minute"),
        (("keys", "limit", "key_0", "--concurrent", "many"), "--concurrent: expected"),
        (("usage", "--start-date", "yesterday"), "start_date: expected"),
        (("keys", "revoke", "key_0"), "no API key with id"),
        (("replay", "resp_0"), "No response with id"),
    ):
        told = chatserver(data, *arguments, code=1 if "with id" in expected else 2)
        assert told.startswith("chatserver: ") and expected in told and told.count("\n") == 1


def _ask(program: Program, token: str, **changes) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    body = {"input": "Hello there", "max_output_tokens": 20, **changes}
    return httpx.post(f"{program.url}/v1/responses", json=body, headers=headers, timeout=60)


def _use_keys_everywhere(program: Program, token: str) -> None:
    """As a header, a subprotocol, a frame, in a URL where it does not belong, and spoilt."""
    url = program.url.replace("http", "ws") + "/v1/responses"
    for key in (token, STATIC):
        with connect(url, subprotocols=["realtime", f"openai-insecure-api-key.{key}"]) as socket:
            socket.send(json.dumps({"type": "response.create", "input": "Hi", "max_output_tokens": 5}))
            assert json.loads(socket.recv(60))["type"] == "response.created"
        with connect(url) as socket:
            socket.send(json.dumps({"type": "auth", "token": key}))
            assert json.loads(socket.recv(60))["type"] == "auth.accepted"
            socket.send(key)
        httpx.get(f"{program.url}/v1/models?api_key={key}", timeout=60)
        httpx.get(
            f"{program.url}/v1/models",
            headers={"authorization": f"Basic {key}", "x-request-id": key},
            timeout=60,
        )
        httpx.post(
            f"{program.url}/v1/responses",
            content=key,
            headers={"authorization": f"Bearer {key}x"},
            timeout=60,
        )


def _kill_everything_in_mid_answer(program: Program, token: str) -> None:
    """Two answers, the bound; the engine and web are killed. When both answers have ended, two more may begin."""
    slow = {"background": True, "max_output_tokens": 3000, "ignore_eos": True}
    started = [_ask(program, token, **slow) for _ in range(2)]
    assert [one.status_code for one in started] == [200, 200]
    assert _ask(program, token, **slow).status_code == 429
    for role in ("engine", "web"):
        program.wait_replaced(role, program.kill(role))
    program.wait_ready()
    deadline = time.monotonic() + 120
    while (answer := _ask(program, token)).status_code == 429:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert answer.status_code == 200
    for one in started:
        url = f"{program.url}/v1/responses/{one.json()['id']}"
        ended = httpx.get(url, headers={"authorization": f"Bearer {token}"}, timeout=60).json()
        while ended["status"] in ("queued", "in_progress"):
            assert time.monotonic() < deadline
            time.sleep(0.2)
            ended = httpx.get(url, headers={"authorization": f"Bearer {token}"}, timeout=60).json()
        assert ended["usage"]["output_tokens"] == 3000
    assert [_ask(program, token, **slow).status_code for _ in range(2)] == [200, 200]
