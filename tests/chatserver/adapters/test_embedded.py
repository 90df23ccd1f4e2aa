"""The embedded store: folders, socket, lock, and what is said when it cannot run."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from chatserver.adapters import embedded
from chatserver.adapters.embedded import SOCKET_PATH_BYTES, keep_synced, prepare, socket_path, url, wait_ready
from chatserver.adapters.valkey import ValkeyStore
from chatserver.adapters.valkey.client import connect
from chatserver.errors import StartupError
from tests.stores import RunningStore, running_store

IDLE_MEMORY = 20 * 1024
"""Bound on what an idle store may take, in KiB."""


async def test_it_is_private_durable_and_small() -> None:
    with running_store() as running:
        client = await connect(running.url)
        flat = await client.run(0, ("CONFIG", "GET", "*"))
        config = dict(zip(flat[::2], flat[1::2], strict=True))
        assert config[b"port"] == b"0"
        assert config[b"appendonly"] == b"yes" and config[b"appendfsync"] == b"no"
        assert config[b"maxmemory-policy"] == b"noeviction" and config[b"save"] == b""
        await client.close()
        for private in (running.data_dir / "store", running.data_dir / "run"):
            assert stat.S_IMODE(private.stat().st_mode) == 0o700
        for path in running.data_dir.glob("store/**/*"):
            assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
        status = Path(f"/proc/{running.pid}/status").read_text()
        resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        print(f"idle store: {resident / 1024:.1f} MiB resident")
        assert resident <= IDLE_MEMORY


def test_the_socket_path_is_short_and_always_the_same(tmp_path: Path) -> None:
    assert socket_path(Path("/data")) == Path("/data/run/store.sock")
    deep = tmp_path / ("x" * 60) / ("y" * 60)
    short = socket_path(deep)
    assert short == socket_path(deep) != socket_path(deep / "z")
    assert len(os.fsencode(short)) <= SOCKET_PATH_BYTES
    assert url(deep) == f"unix://{short}"


async def test_it_runs_from_a_deep_folder_and_one_with_spaces(tmp_path: Path) -> None:
    for folder in (tmp_path / ("x" * 120), tmp_path / 'a "quoted" folder \\ of #mine'):
        running = RunningStore(folder, log=tmp_path / "log")
        running.start()
        store = await ValkeyStore.open(running.url)
        await store.registry.ping()
        await store.close()
        running.close()
        if not running.socket.is_relative_to(tmp_path):
            shutil.rmtree(running.socket.parent)


def test_a_second_server_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    """Also while only the store itself is left of a killed server; and not any more when that is gone."""
    running = RunningStore(tmp_path)
    running.start()
    with pytest.raises(StartupError, match="already uses"):
        prepare(tmp_path)
    running.forget()
    with pytest.raises(StartupError, match="already uses"):
        prepare(tmp_path)
    running.kill()
    prepare(tmp_path).release()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "data"
    blocked.write_text("a file")
    with pytest.raises(StartupError, match="cannot write to"):
        prepare(blocked)


def test_a_binary_that_cannot_run_is_named(tmp_path: Path) -> None:
    foreign = tmp_path / "valkey-server"
    foreign.write_bytes(b"\x7fELF nonsense")
    with pytest.raises(StartupError, match="cannot run"):
        prepare(tmp_path, binary=foreign)
    foreign.chmod(0o755)
    with pytest.raises(StartupError, match="cannot run"):
        prepare(tmp_path, binary=foreign)


async def test_waiting_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that is not there, or is there and silent, is waited for aloud, and given up with one line."""
    monkeypatch.setattr(embedded, "TELL_AFTER", 0.05)
    with pytest.raises(StartupError, match=r"not ready within .* start it: chatserver store"):
        await wait_ready(tmp_path / "nothing.sock", 0.2)
    assert caplog.text.count("waiting for the store at") == 1
    with running_store() as running:
        await wait_ready(running.socket, 5)
        running.pause()
        with pytest.raises(StartupError, match="does not answer"):
            await wait_ready(running.socket, 0.8)
        running.resume()


async def test_a_store_that_loads_its_file_is_not_ready(tmp_path: Path) -> None:
    async def load(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        nonlocal asked
        asked += 1
        writer.write(b"+PONG\r\n" if asked > 2 else b"-LOADING the dataset\r\n")
        writer.close()

    asked = 0
    path = tmp_path / "s.sock"
    async with await asyncio.start_unix_server(load, path):
        await wait_ready(path, 5)
    assert asked == 3


async def test_the_file_is_synced_until_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The append-only file itself, again and again; a folder without one is no error."""
    synced = asyncio.Queue[str]()
    loop = asyncio.get_running_loop()

    def sync(descriptor: int) -> None:
        loop.call_soon_threadsafe(synced.put_nowait, str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    monkeypatch.setattr(os, "fsync", sync)
    with running_store() as running:
        task = asyncio.create_task(keep_synced(running.data_dir / "store", every=0.01))
        async with asyncio.timeout(60):
            assert [(await synced.get())[-9:] for _ in range(3)] == [".incr.aof"] * 3
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await _one_round(running.data_dir / "nothing")


async def _one_round(folder: Path) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(keep_synced(folder, every=0.001), 0.05)


def test_importing_it_starts_nothing() -> None:
    """No process, no folder, no torch."""
    modules = "chatserver.adapters.embedded, chatserver.adapters.valkey, sys"
    code = f"import {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=Path(__file__).parents[3])
