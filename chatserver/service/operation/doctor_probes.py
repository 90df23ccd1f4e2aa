"""What the doctor looks at on the server's side: data folder, store, port, a running server, the engine's start."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from chatserver.adapters import embedded
from chatserver.adapters.valkey import ValkeyStore
from chatserver.errors import ChatServerError, StartupError
from chatserver.service.supervision.listening import is_exposed, listen
from chatserver.service.supervision.orphans import follow_parent
from chatserver.settings import Settings
from engine.contract import ModelUnusable
from engine.doctor import Finding, Level
from engine.launch_errors import advice
from engine.models import known_models, prepare

PROBE_SECONDS = 2.5
COMPLETION_SECONDS = 20.0
"""How long a running server may take for eight tokens; the other probes are printed before it answers."""
ENGINE_SECONDS = 900.0
_LEAST_DISK = 2 * 2**30
_NO_DISK = 256 * 2**20
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
_QUESTION = {
    "messages": [{"role": "user", "content": "Say hello."}],
    "max_completion_tokens": 8,
    "store": False,
}


def data_folder(settings: Settings) -> Finding:
    """Look whether the data folder can be written and has room."""
    folder = settings.data_dir
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Finding(
            Level.FAIL, "data", f"{there} cannot be written", "choose another folder with DATA_DIR="
        )
    free = shutil.disk_usage(there).free
    detail = f"{folder}, {free / 2**30:.1f} GiB free"
    if free < _NO_DISK:
        return Finding(
            Level.FAIL, "data", detail, "free some disk space, or choose another folder with DATA_DIR="
        )
    if free < _LEAST_DISK:
        return Finding(Level.WARN, "data", detail, "a prepared model, the store and logs want 2 GiB")
    return Finding(Level.OK, "data", detail)


def store(settings: Settings) -> Finding:
    """Ask the store for an answer; where the embedded one is not running, start one for a moment."""
    try:
        if settings.redis_url is not None:
            return asyncio.run(_ask_store(settings.redis_url))
        if _answers(settings.data_dir):
            return Finding(Level.OK, "store", "embedded, running, answers")
        return _try_embedded()
    except ChatServerError as error:
        return Finding(Level.FAIL, "store", _text(error))  # these messages say what to do
    except (OSError, TimeoutError) as error:
        where = "your Redis or Valkey" if settings.redis_url else "the embedded store"
        reason = "no answer in time" if isinstance(error, TimeoutError) else _text(error)
        return Finding(Level.FAIL, "store", f"{where}: {reason}", "start one, and set REDIS_URL to it")


def port(settings: Settings) -> Finding:
    """Look whether the address can be listened on, or is this server's own."""
    where = f"{settings.host}:{settings.port}"
    if _get(settings, "/livez") is not None:
        return Finding(Level.OK, "port", f"{where}: a server is running")
    try:
        listen(settings, stored_keys=True).close()  # whether there are some, the start finds out
        exposed = not settings.api_keys and is_exposed(settings)
    except StartupError as error:
        return Finding(Level.FAIL, "port", error.message)
    needed = "; others can reach it, so it needs a key: chatserver keys list" if exposed else ""
    return Finding(Level.OK, "port", f"{where} is free{needed}")


def cache(settings: Settings) -> Finding:
    """Look at the KV pools of a running server's engines: whether all tokens belong to somebody."""
    ready = _get(settings, "/readyz")
    engines = _ready_engines(ready[1]) if ready else []
    if not engines:
        return Finding(Level.OK, "cache", "no engine is running")
    total, cached, leaked = (
        sum(int(engine.get(f"kv_{name}") or 0) for engine in engines)
        for name in ("tokens", "cached", "leaked")
    )
    detail = f"{total:,} tokens, {cached:,} of them hold prefixes"
    if leaked:
        return Finding(
            Level.WARN, "cache", f"{detail}, {leaked:,} belong to nobody", "restart the engine to free them"
        )
    return Finding(Level.OK, "cache", f"{detail}, none is lost")


def completion(settings: Settings) -> Finding:
    """Have a running server write a few tokens."""
    ready = _get(settings, "/readyz")
    if ready is None:
        hint = "start it with make serve, or try the engine alone: chatserver doctor --engine"
        return Finding(Level.OK, "completion", f"no server at {settings.host}:{settings.port}; {hint}")
    if ready[0] != 200:
        return Finding(
            Level.WARN, "completion", f"not ready: {ready[1].get('reason')}", "wait, or see its log"
        )
    question = {**_QUESTION, "model": _ready_model(ready[1])}
    began = time.monotonic()
    try:
        status, answer = _post(settings, "/v1/chat/completions", question)
    except (OSError, HTTPException, ValueError) as error:
        return Finding(Level.FAIL, "completion", _text(error), "see the log of the engine in the data folder")
    took = time.monotonic() - began
    if status == HTTPStatus.UNAUTHORIZED:  # keys in the store are kept as hashes: the doctor knows none
        return Finding(
            Level.WARN,
            "completion",
            "the server wants a key",
            "ask it something with a key of chatserver keys create",
        )
    if status != HTTPStatus.OK:
        error = answer.get("error")
        said = error.get("message") if isinstance(error, dict) else None
        detail = f"status {status}: {said or 'no message'}"
        return Finding(Level.FAIL, "completion", detail, "see the log of the engine in the data folder")
    usage = answer.get("usage")
    tokens = usage.get("completion_tokens", 0) if isinstance(usage, dict) else 0
    return Finding(Level.OK, "completion", f"{question['model']} wrote {tokens} tokens in {took:.1f} s")


def engine(settings: Settings, path: Path | None) -> Finding:
    """Start the engine in a process of its own and have it write a few tokens; takes as long as a start does."""
    if path is None:
        return Finding(Level.OK, "engine", "scripted: nothing to start")
    try:
        folder = prepare(settings.model, settings.data_dir, lambda *progress: None)
    except ModelUnusable as error:
        return Finding(Level.FAIL, "engine", str(error), "see model")
    command = [sys.executable, "-m", "engine.trial", str(folder)]
    command += ["--context", str(settings.context)] if settings.context else []
    command += ["--profile", settings.profile] if settings.profile else []
    status, printed, log = _run(command, ENGINE_SECONDS)
    if status is None:
        return Finding(
            Level.FAIL, "engine", f"not ready within {ENGINE_SECONDS:.0f} s", "see what the machine does"
        )
    try:
        answer = json.loads(printed.strip().rpartition("\n")[2])
    except ValueError:
        answer = {"ok": False, "error": f"it ended with exit code {status}"}
    if not answer["ok"]:
        error = str(answer["error"])
        hint = advice(f"{log}\n{error}") or "run it by itself to see its log: make serve"
        return Finding(Level.FAIL, "engine", error, "" if hint in error else hint)
    detail = f"started in {answer['start_seconds']} s, wrote {answer['tokens']} tokens"
    return Finding(Level.OK, "engine", f"{detail}, has a cache of {answer['kv_tokens']:,} tokens")


def model_path(settings: Settings) -> Path | None:
    """Return where the model's folder is or will be; None for the scripted engine."""
    if settings.model == "scripted":
        return None
    if settings.model in known_models():
        return settings.data_dir / "models" / settings.model
    return Path(settings.model).expanduser()


async def _ask_store(url: str) -> Finding:
    async with asyncio.timeout(PROBE_SECONDS - 0.5):
        opened = await ValkeyStore.open(url)
        try:
            await opened.registry.ping()
        finally:
            await opened.close()
    return Finding(Level.OK, "store", "your Redis or Valkey answers")


def _answers(data_dir: Path) -> bool:
    """Say whether the embedded store of a data folder is running."""
    socket = embedded.socket_path(data_dir)
    if not socket.exists():
        return False
    try:
        asyncio.run(embedded.wait_ready(socket, 0.5))
    except StartupError:
        return False
    return True


def _try_embedded() -> Finding:
    """Start an empty store of the same binary in a folder of its own, and end it."""
    with tempfile.TemporaryDirectory(prefix="doctor-") as folder:
        prepared = embedded.prepare(Path(folder))
        quiet = subprocess.DEVNULL
        with subprocess.Popen(  # noqa: S603 - our own binary
            prepared.argv, pass_fds=(prepared.lock,), stdout=quiet, stderr=quiet, umask=embedded.UMASK
        ) as process:
            prepared.release()
            try:
                asyncio.run(embedded.wait_ready(prepared.socket, PROBE_SECONDS - 0.5))
            finally:
                process.kill()
    return Finding(Level.OK, "store", "embedded, starts and answers")


def _ready_model(report: dict[str, Any]) -> str:
    """Return a model that an engine has ready, out of /readyz."""
    return next((str(e["model"]) for e in _ready_engines(report) if e.get("model")), "")


def _ready_engines(report: dict[str, Any]) -> list[dict[str, Any]]:
    engines = (engine for engine in report.get("engines") or () if isinstance(engine, dict))
    return [engine for engine in engines if engine.get("state") == "ready"]


def _get(settings: Settings, path: str) -> tuple[int, dict[str, Any]] | None:
    """Return (status, body) of a server of ours, None if there is none."""
    try:
        status, body = _exchange(settings, "GET", path, None, 1.0)
    except (OSError, HTTPException, ValueError):
        return None
    return (status, body) if "status" in body else None


def _post(settings: Settings, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return _exchange(settings, "POST", path, json.dumps(body), COMPLETION_SECONDS)


def _exchange(
    settings: Settings, method: str, path: str, body: str | None, timeout: float
) -> tuple[int, dict[str, Any]]:
    host = _WILDCARDS.get(settings.host, settings.host)
    headers = {"content-type": "application/json"}
    if settings.api_keys:
        headers["authorization"] = f"Bearer {settings.api_keys[0][1]}"
    connection = HTTPConnection(host, settings.port, timeout=timeout)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        answer = json.loads(response.read(1_000_000))
    if not isinstance(answer, dict):
        raise ValueError("expected a JSON object")  # noqa: TRY004 - the caller treats all foreign answers alike
    return response.status, answer


def _run(command: list[str], seconds: float) -> tuple[int | None, str, str]:
    """Run a process group to its end; return (exit code or None when out of time, output, end of the log)."""
    process = subprocess.Popen(  # noqa: S603 - this program
        command,
        preexec_fn=follow_parent(signal.SIGKILL),  # noqa: PLW1509 - async-signal-safe calls only
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        printed, log = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None, "", ""
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGTERM)
        raise
    return process.returncode, printed, log[-20_000:]


def _text(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
