"""The servers that are compared: each starts, names the process under test, and stops."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

import httpx

from tests.bench.relay import stub
from tests.bench.relay.processes import pin
from tests.program import ROOT, Program, free_port

SERVER_CORE, OTHER_CORE = 0, 1


class Arm(Protocol):
    """One server under test, pinned: it on one core, all that serves it on the other."""

    port: int
    front: int
    """Process id of what faces the clients."""


class Ours:
    """The whole program, with SGLang's own ways in and out over the stub scheduler, or `scripted`: without SGLang."""

    def __init__(
        self, folder: Path, rate: float, streams: int, niceness: int, *, scripted: bool = False
    ) -> None:
        common = {"CHATSERVER_MAX_RUNNING": str(streams), "CHATSERVER_QUEUE_BOUND": str(streams)}
        if scripted:
            # its first token comes at once, as the stub's
            settings = {"SCRIPTED_TOKENS_PER_SECOND": str(rate), "SCRIPTED_TTFT_MS": "0"}
            self._program = Program(folder / "scripted", model="scripted", **common, **settings)
        else:
            settings = {
                stub.RATE: str(rate),
                "CHATSERVER_ALIASES": "scripted",
                "CHATSERVER_CONTEXT": str(stub.CONTEXT),
            }
            module = f"{__package__}.stubbed"
            self._program = Program(
                folder / "ours", model=stub.MODEL.name, module=module, **common, **settings
            )
        self.port = self._program.port
        self.front = 0
        self._niceness = niceness

    def __enter__(self) -> Ours:
        self._program.__enter__()
        self._program.wait_ready(120)
        pin(self._program.process.pid, OTHER_CORE, children=True, niceness=self._niceness)
        self.front = self._program.pid("web")
        pin(self.front, SERVER_CORE, children=False, niceness=self._niceness)
        return self

    def __exit__(self, *_: object) -> None:
        self._program.stop()

    def pid(self, role: str) -> int:
        """Return the process id of a role."""
        return self._program.pid(role)


class Bare:
    """A server that is one module of this package, run with a port and a rate."""

    def __init__(self, folder: Path, module: str, rate: float, niceness: int, *, ready: str = "") -> None:
        self.port = free_port()
        self.front = 0
        self._niceness = niceness
        self._command = [sys.executable, "-m", f"tests.bench.relay.{module}", str(self.port), str(rate)]
        self._log = folder / f"{module}.log"
        self._ready = ready

    def __enter__(self) -> Bare:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, cwd=ROOT, stdout=log, stderr=log)
        self.front = self._process.pid
        deadline = time.monotonic() + 180
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{self._command} did not start:\n{self._log.read_text()[-4000:]}")
            time.sleep(0.2)
        pin(self.front, OTHER_CORE, children=True, niceness=self._niceness)
        pin(self.front, SERVER_CORE, children=False, niceness=self._niceness)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        try:
            if self._ready:
                return httpx.get(f"http://127.0.0.1:{self.port}{self._ready}", timeout=2).status_code == 200
            with socket.create_connection(("127.0.0.1", self.port), 1):
                return True
        except (httpx.HTTPError, OSError):
            return False
