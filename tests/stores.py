"""Starts a private store for tests: `async with empty_store() as store:`, or the process alone with `running_store`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from chatserver.adapters.embedded import EmbeddedStore, prepare
from chatserver.adapters.valkey import ValkeyStore

READY_WITHIN = 60.0


class RunningStore:
    """One server process on a unix socket, in a folder of its own. `kill`, `restart`: for crash tests."""

    def __init__(self, data_dir: Path, binary: Path | None = None, log: Path | None = None) -> None:
        self.data_dir = data_dir
        self.log = log or data_dir.with_suffix(".log")
        self._prepared: EmbeddedStore = prepare(data_dir, binary=binary)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self._prepared.url

    @property
    def socket(self) -> Path:
        return self._prepared.socket

    @property
    def pid(self) -> int:
        assert self._process is not None, "the store is not running"
        return self._process.pid

    def start(self) -> None:
        prepared = self._prepared
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                prepared.argv, stdout=log, stderr=log, pass_fds=(prepared.lock,), umask=0o077
            )
        deadline = time.monotonic() + READY_WITHIN
        while not _answers(prepared.socket):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the store did not start:\n{self.log.read_text()}")
            time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def pause(self) -> None:
        """Stop the process without closing anything, as a frozen machine would."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        self.kill()
        self.start()

    def forget(self) -> None:
        """Let go of the folder as a killed supervisor would: the store lives on."""
        self._prepared.release()

    def close(self) -> None:
        self.kill()
        self._prepared.release()


@contextmanager
def running_store(binary: Path | None = None) -> Iterator[RunningStore]:
    """A started store in a temporary folder; it is killed and the folder removed at the end."""
    with tempfile.TemporaryDirectory(prefix="chatserver-store-") as folder:
        store = RunningStore(Path(folder) / "data", binary)
        try:
            store.start()
            yield store
        finally:
            store.close()


@asynccontextmanager
async def empty_store() -> AsyncIterator[ValkeyStore]:
    """A private store and the adapter on it, until the block ends."""
    with running_store() as running:
        store = await ValkeyStore.open(running.url)
        try:
            yield store
        finally:
            await store.close()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
            probe.sendall(b"*1\r\n$4\r\nPING\r\n")
            return probe.recv(64).startswith(b"+PONG")
        except OSError:
            return False
