"""Runs one environment's pip: noise goes to a log file, progress to one line, failures come with advice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

IGNORED = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PYTHONPATH", "PYTHONHOME")
"""Variables that would make pip install elsewhere, or see packages that are not in the environment."""

ADVICE = (
    (("No space left on device",), "the disk is full; free some space and run the same command again"),
    (
        ("CERTIFICATE_VERIFY_FAILED",),
        "the package index is not trusted; set PIP_CERT to your network's certificates",
    ),
    (
        ("establish a new connection", "name resolution", "ProxyError", "timed out", "connection error"),
        "the package index cannot be reached; check the network and run the same command again",
    ),
    (
        ("No matching distribution",),
        "the package index is not reachable, or has no wheel for this machine (Linux on x86-64, glibc 2.34"
        " or newer has them all)",
    ),
)


class SetupError(Exception):
    """The installation cannot go on; the message says what to do."""


class Pip:
    """The pip of the environment whose interpreter is `python`."""

    def __init__(self, python: Path, *, log: Path, scratch: Path) -> None:
        self._command = [str(python), "-m", "pip", "install"]
        self._log, self._scratch = log, scratch
        scratch.mkdir(exist_ok=True)
        log.write_text("")
        # gigabytes are unpacked in the temporary folder, which is often a small one in memory
        self._env = {name: value for name, value in os.environ.items() if name not in IGNORED}
        self._env.update(TMPDIR=str(scratch), PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1")

    def is_cuda_build(self, pin: str) -> bool:
        """Say whether `pin` would come with CUDA libraries. Asks the index, downloads nothing large."""
        report = self._scratch / "report.json"
        with self._log.open("a") as log:
            if self._run([*self._command, "--dry-run", "--no-deps", "--report", str(report), pin], log.write):
                log.flush()
                raise SetupError(self._failure(f"finding {pin}"))
        needs = json.loads(report.read_text())["install"][0]["metadata"].get("requires_dist", [])
        return any(need.startswith(("nvidia-", "cuda-")) for need in needs)

    def install(self, what: str, *arguments: str) -> None:
        """Run `pip install` with `arguments`. Raises SetupError with the end of the log."""
        # --no-compile: bytecode is made when a module is first imported, and most never are
        command = [*self._command, "--no-compile", "--progress-bar", "off", "--retries", "5", *arguments]
        with self._log.open("a") as log, Progress(what, _count(arguments)) as progress:
            log.write(f"$ {' '.join(command)}\n")
            code = self._run(command, lambda line: (log.write(line), progress.see(line)))
        if code:
            raise SetupError(self._failure(f"installing {what}"))

    def _run(self, command: list[str], see: Callable[[str], object]) -> int:
        pipe = subprocess.PIPE
        child = subprocess.Popen(
            command, env=self._env, stdin=subprocess.DEVNULL, stdout=pipe, stderr=subprocess.STDOUT, text=True
        )
        assert child.stdout is not None
        try:
            for line in child.stdout:
                see(line)
            return child.wait()
        except BaseException:  # Ctrl-C above all: pip must not go on writing behind our back
            child.terminate()
            child.wait(timeout=30)
            raise

    def _failure(self, doing: str) -> str:
        end = self._log.read_text(errors="replace").splitlines()[-60:]
        text = "\n".join(end)
        advice = next((advice for marks, advice in ADVICE if any(mark in text for mark in marks)), "")
        errors = [line for line in end if line.startswith("ERROR")][-4:] or end[-8:]
        shown = "\n".join(f"  {line[:300]}" for line in errors)
        return f"{doing} failed{': ' + advice if advice else ''}\n{shown}\n  (all of it: {self._log})"


class Progress:
    """One line that counts packages: rewritten on a terminal, printed in two halves elsewhere."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._seen = what, total, 0
        self._live, self._start = sys.stdout.isatty(), time.monotonic()

    def __enter__(self) -> Progress:
        size = f", {self._total} packages" if self._total else ""
        print(f"setup: installing {self._what}{size} …", end="", flush=True)
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        seconds = f"{time.monotonic() - self._start:.0f} s"
        ending = f"stopped after {seconds}" if failure else seconds
        print(
            f"\r\033[2Ksetup: installing {self._what} … {ending}" if self._live else f" {ending}", flush=True
        )

    def see(self, line: str) -> None:
        """Take one line of pip's output."""
        if not self._live:
            return
        if line.startswith(("Collecting ", "Processing ", "Requirement already satisfied")):
            self._seen += 1
            count = f"{min(self._seen, self._total)}/{self._total}" if self._total else self._seen
            print(f"\r\033[2Ksetup: installing {self._what} … {count}", end="", flush=True)
        elif line.startswith("Installing collected"):
            print(f"\r\033[2Ksetup: installing {self._what} … unpacking", end="", flush=True)


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"setup: {text}", flush=True)


def _count(arguments: tuple[str, ...]) -> int:
    if "-r" not in arguments:
        return 0
    lock = Path(arguments[arguments.index("-r") + 1])
    return sum("==" in line for line in lock.read_text().splitlines())
