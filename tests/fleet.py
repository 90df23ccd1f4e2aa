"""Starts roles of the program one by one on a store, as a platform would: several webs, several engines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tests.program import ROOT, free_port


class Process:
    """One role. `url` of a web."""

    def __init__(self, role: str, folder: Path, environment: dict[str, str]) -> None:
        self.role, self.port = role, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"{role}-{self.port}.log"
        own = {"CHATSERVER_PORT": str(self.port), "CHATSERVER_DATA_DIR": str(folder / f"data-{self.port}")}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "chatserver", role],
                cwd=ROOT,
                env={**environment, **own},
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.process.kill()
        self.process.wait(10)

    def end(self, timeout: float = 40) -> int:
        """SIGTERM; return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)


class Fleet:
    """Webs and engines on one store. Use as a context manager: all are killed at the end."""

    def __init__(self, folder: Path, redis_url: str, **environment: str) -> None:
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith(("CHATSERVER_", "SCRIPTED_", "REDIS_"))
        }
        self._folder = folder
        self._environment = {
            **inherited,
            "CHATSERVER_REDIS_URL": redis_url,
            "CHATSERVER_MODEL": "scripted",
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        self._all: list[Process] = []

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._all:
            if one.process.poll() is None:
                one.kill()

    def start(self, role: str, **environment: str) -> Process:
        """Start one more process of a role; `environment` is for it alone."""
        made = Process(role, self._folder, {**self._environment, **environment})
        self._all.append(made)
        return made

    def wait_ready(self, web: Process, engines: int, timeout: float = 60) -> None:
        """Wait until a web process sees that many ready engines."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            assert web.process.poll() is None, web.log.read_text()
            try:
                seen = httpx.get(f"{web.url}/readyz", timeout=2).json()["engines"]
                if sum(engine["state"] == "ready" for engine in seen) >= engines:
                    return
            except (httpx.HTTPError, KeyError):
                pass
            time.sleep(0.1)
        raise AssertionError(f"not ready: {web.log.read_text()[-2000:]}")
