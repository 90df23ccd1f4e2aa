"""The data folder of one running server: who holds it, which process has which role, what they printed."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import BinaryIO

from chatserver.errors import StartupError

LOG_BYTES = 4_000_000
"""Size at which a role's log becomes `<role>.log.1`, and the one before that is dropped."""


class RunFolder:
    """`data_dir/run` and `data_dir/logs`, held by one supervisor at a time. Use as a context manager."""

    def __init__(self, data_dir: Path) -> None:
        """Create the folders and take the lock. Raises StartupError if either cannot be done."""
        self._run, self._logs = data_dir / "run", data_dir / "logs"
        try:
            for folder in (data_dir, self._run, self._logs):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self._run / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            reason = error.strerror or error
            raise StartupError(
                f"{data_dir}: cannot be used as data folder ({reason}); choose another with DATA_DIR=…"
            ) from None
        self._hold(data_dir)
        for stale in self._run.glob("*.pid"):  # of a supervisor that was killed
            stale.unlink()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def write_pid(self, role: str, pid: int) -> None:
        """Record which process has a role now; readers see the old file or the new one, never half of one."""
        fresh = self._run / f".{role}.pid"
        fresh.write_text(f"{pid}\n")
        fresh.replace(self._run / f"{role}.pid")

    def drop_pid(self, role: str) -> None:
        """Record that nobody has a role now."""
        (self._run / f"{role}.pid").unlink(missing_ok=True)

    def log(self, role: str) -> RoleLog:
        """Return the log of a role, to append to."""
        return RoleLog(self._logs / f"{role}.log")

    def _hold(self, data_dir: Path) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 20, 0).decode().strip() or "unknown"
            os.close(self._lock)
            raise StartupError(
                f"{data_dir} is in use by process {holder}; stop that one, or choose another with DATA_DIR=…"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)


class RoleLog:
    """What a role printed, on disk, in at most twice LOG_BYTES. A full disk loses lines, not the server."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._size = 0

    def write(self, text: str) -> None:
        """Append one line."""
        line = text.encode() + b"\n"
        with contextlib.suppress(OSError):  # see the class: there is nowhere to report it to
            if self._file is None or self._size > LOG_BYTES:
                self._open()
            assert self._file is not None
            self._file.write(line)
            self._size += len(line)

    def close(self) -> None:
        """Close the file; a later `write` opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> None:
        self.close()
        if self.path.exists() and self.path.stat().st_size > LOG_BYTES:
            self.path.replace(self.path.with_suffix(".log.1"))
        self._file = self.path.open("ab", buffering=0)
        self._size = self._file.tell()
