"""No child outlives its supervisor, even one that was killed with SIGKILL.

On Linux the kernel is asked to send the child a signal when its parent dies. Elsewhere a guardian, a
process that does nothing else, notices the end of a pipe and ends the process groups it was told of.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>."""


def follow_parent(number: signal.Signals) -> Callable[[], None] | None:
    """Return what a new child calls before exec to get `number` when this process dies; None if it cannot.

    The setting outlives exec. It is bound to the thread that forks: fork in the main thread.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:  # it died before the call above
            os.kill(os.getpid(), signal.SIGKILL)

    return ask


class Guardian:
    """Ends process groups when this process is gone without having released them."""

    def __init__(self) -> None:
        command = [sys.executable, "-SP", __file__]  # by path: it needs nothing but the standard library
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True, bufsize=0
        )

    def watch(self, group: int) -> None:
        """End `group` should this process die."""
        self._tell(f"+{group}\n")

    def release(self, group: int) -> None:
        """Forget `group`: it has ended."""
        self._tell(f"-{group}\n")

    def close(self) -> None:
        """Let the guardian end, and every group that was not released with it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode())


def kill_group(group: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Signal every process of a group, if there still is one."""
    # a group that is gone has nothing left to signal; on macOS one of zombies only gives EPERM
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def guard() -> None:
    """Be the guardian: read `+group` and `-group` until the other end is gone, then kill what remains."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
    for group in groups:
        kill_group(group)


if __name__ == "__main__":
    guard()
