"""Starts the whole program for a test, as a person would, and finds its parts."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).resolve().parent.parent
KEPT = Path(os.environ.get("CHATSERVER_TEST_DATA", ROOT / ".data"))
"""Prepared models and compiled kernels are kept between test runs, as they are between starts."""
MODELS, KERNELS = KEPT / "models", KEPT / "kernels"


FIRST, PORTS = 10_240, 3_900
"""Below those that the system gives to connections: nobody is given one between the look and its use. A cluster's
second port, 10,000 above, is below them, too. Each process of a test run has as many for itself."""
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 3
_given: set[int] = set()


def free_port() -> int:
    """Return a loopback port that nobody listens on, and that was not returned before."""
    while True:
        port = FIRST + _worker * PORTS + random.randrange(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            return port


def inherited() -> dict[str, str]:
    """Return the environment without settings of the program."""
    ours = ("CHATSERVER_", "SCRIPTED_", "REDIS_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


class Program:
    """`chatserver serve` in its own data folder. Use as a context manager. `module`: what is run in its place."""

    def __init__(self, data_dir: Path, *, model: str, module: str = "chatserver", **environment: str) -> None:
        self._module = module
        self.data_dir = data_dir
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = data_dir.with_suffix(".log")
        data_dir.mkdir(parents=True, exist_ok=True)
        MODELS.mkdir(parents=True, exist_ok=True)
        if not (data_dir / "models").exists():
            (data_dir / "models").symlink_to(MODELS)
        self._environment = {
            **inherited(),
            "ENGINE_KERNEL_CACHE": str(KERNELS),
            "CHATSERVER_PORT": str(self.port),
            "CHATSERVER_DATA_DIR": str(data_dir),
            "CHATSERVER_MODEL": model,
            "PYTHONUNBUFFERED": "1",
            **environment,
        }

    def __enter__(self) -> Program:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self._module, "serve"],
                cwd=ROOT,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, timeout: float = 60) -> int:
        """Ask for the end as Ctrl-C does; return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise AssertionError(f"the program did not end within {timeout} s:\n{self.tail()}") from None

    def wait_ready(self, timeout: float = 400) -> float:
        """Wait for /readyz; return the seconds it took."""
        started = time.monotonic()
        while time.monotonic() - started < timeout:
            if self.process.poll() is not None:
                raise AssertionError(f"the program ended with {self.process.returncode}:\n{self.tail()}")
            if self._ready():
                return time.monotonic() - started
            time.sleep(0.1)
        raise AssertionError(f"not ready after {timeout} s:\n{self.tail()}")

    def pid(self, role: str) -> int:
        """Return the process id of store, engine or web."""
        return int((self.data_dir / "run" / f"{role}.pid").read_text().split()[0])

    def kill(self, role: str, signal_number: int = signal.SIGKILL) -> int:
        """Send a signal to one role and return the id it had."""
        pid = self.pid(role)
        os.kill(pid, signal_number)
        return pid

    def schedulers(self) -> list[psutil.Process]:
        """Return SGLang's scheduler processes: forks of the engine, so called as it is until they name themselves.

        Its other children, some of which live for a moment of its imports, are other programs.
        """
        found = []
        for child in psutil.Process(self.pid("engine")).children():
            with contextlib.suppress(psutil.Error):  # it may end meanwhile
                if re.search("-m chatserver engine|sglang::scheduler", " ".join(child.cmdline())):
                    found.append(child)
        return found

    def wait_replaced(self, role: str, old: int, timeout: float = 60) -> int:
        """Wait until the supervisor has started another process for a role."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                if (new := self.pid(role)) != old:
                    return new
            except (FileNotFoundError, IndexError):
                pass
            time.sleep(0.05)
        raise AssertionError(f"{role} was not replaced within {timeout} s:\n{self.tail()}")

    def tail(self, lines: int = 60) -> str:
        """Return the end of what the program printed."""
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.log.read_text(errors="replace"))
        return "\n".join(text.splitlines()[-lines:])

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False
