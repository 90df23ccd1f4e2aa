"""Installs the server into `.venv` beside it; `make setup` runs this with whatever `python3` there is.

Only the standard library, and only syntax that old interpreters can read: this file also has to say, in
one clear line, that an interpreter is too old. What is installed is pinned in the lock files beside it.
Stamps in `.venv` remember what was installed, so a second run costs a few file reads; they are written
last, so an interrupted run is taken up where it stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from run_pip import Pip, SetupError, say

OLDEST, NEWEST = (3, 11), (3, 13)
"""The interpreters for which every pinned package has a wheel."""

DEPLOY = Path(__file__).resolve().parent
SPACE = {"cpu.lock": 6, "gpu.lock": 40}
"""GiB that must be free for a first installation."""
CONTENTS = {
    "cpu.lock": "the server's packages",
    "gpu.lock": "the server's packages, CUDA",
    "dev.lock": "the test tools",
}


class Environment:
    """The virtual environment of one clone, and the lock files whose packages it should hold, in order."""

    def __init__(self, root: Path, locks: list[str], deploy: Path = DEPLOY) -> None:
        self.root, self.locks = root, locks
        self.path = root / ".venv"
        self.python = self.path / "bin" / "python"
        self._deploy = deploy

    def is_current(self) -> bool:
        """Say whether everything asked for is installed already. Reads a few files, runs nothing."""
        if not self.python.exists() or not (self.path / "bin" / "chatserver").exists():
            return False
        stamps = ((self._stamp(lock), self._digest(lock)) for lock in self.locks)
        return all(stamp.exists() and stamp.read_text() == digest for stamp, digest in stamps)

    def install(self) -> None:
        """Create the environment if need be and install what is missing. Raises SetupError."""
        if not self._runs():
            self._create()
        for stamp in self.path.glob("*.installed"):
            stamp.unlink()  # of other locks too: one may replace what another installed
        self._forget_half_installed()
        pip = Pip(self.python, log=self.path / "install.log", scratch=self.path / "tmp")
        if "cpu.lock" in self.locks:
            self._prepare_for_cuda_build(pip)
        for lock in self.locks:
            pip.install(CONTENTS[lock], "-r", str(self._deploy / lock), "--no-deps", "--only-binary", ":all:")
        # without build isolation, the build backend is the pinned one in the environment
        pip.install("the server itself", "--no-deps", "--no-build-isolation", "-e", str(self.root))
        shutil.rmtree(self.path / "tmp", ignore_errors=True)
        for lock in self.locks:
            self._stamp(lock).write_text(self._digest(lock))

    def _stamp(self, lock: str) -> Path:
        return self.path / f"{lock}.installed"

    def _digest(self, lock: str) -> str:
        # pyproject.toml counts because the entry points are written from it, the root because the
        # environment points to it, pyvenv.cfg because it names the interpreter
        digest = hashlib.sha256(str(self.root).encode())
        for file in (self._deploy / lock, self.root / "pyproject.toml", self.path / "pyvenv.cfg"):
            digest.update(file.read_bytes() if file.exists() else b"-")
        return digest.hexdigest()

    def _runs(self) -> bool:
        try:
            subprocess.run(
                [self.python, "-m", "pip", "--version"], check=True, capture_output=True, timeout=60
            )
        except (OSError, subprocess.SubprocessError):
            return False
        return True

    def _create(self) -> None:
        self._clear()
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        if importlib.util.find_spec("ensurepip") is None:
            advice = f"install it (Debian, Ubuntu: apt install python{version}-venv)"
            raise SetupError(f"the venv module of {sys.executable} is incomplete; {advice}")
        need = max(SPACE.get(lock, 0) for lock in self.locks)
        free = shutil.disk_usage(self.root).free / 2**30
        if free < need:
            raise SetupError(f"needs {need} GiB of free disk space in {self.root}, found {free:.1f} GiB")
        say(f"creating .venv with Python {version}")
        self._make()

    def _make(self) -> None:
        command = [sys.executable, "-m", "venv", str(self.path)]
        made = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
        if made.returncode:
            raise SetupError(f"could not create {self.path}: {(made.stderr or made.stdout).strip()}")

    def _clear(self) -> None:
        """Remove what is left of an environment; refuse to remove anything else."""
        if self.path.is_symlink():
            if self.path.exists() and any(self.path.iterdir()):
                raise SetupError(f"{self.path} links to a folder without a working Python; remove the link")
            self.path.unlink()
        elif self.path.is_dir():
            known = {"pyvenv.cfg", "bin", "lib", "include"}
            names = {entry.name for entry in self.path.iterdir()}
            if names and not names & known:
                raise SetupError(f"{self.path} is not a virtual environment; move it away")
            shutil.rmtree(self.path)
        elif self.path.exists():
            raise SetupError(f"{self.path} is a file; move it away")

    def _packages(self, pattern: str) -> Iterator[Path]:
        return self.path.glob(f"lib/python*/site-packages/{pattern}")

    def _forget_half_installed(self) -> None:
        # pip writes INSTALLER after the package: without it, pip was interrupted while it copied, and
        # would now take the package for installed
        for folder in self._packages("*.dist-info"):
            if not (folder / "INSTALLER").exists():
                shutil.rmtree(folder)

    def _prepare_for_cuda_build(self, pip: Pip) -> None:
        """If the index has only PyTorch's CUDA build, say so before the download; install its needs."""
        if any(self._packages("torch-*.dist-info")):
            return
        lock = self._deploy / "cpu.lock"
        pin = next(line.strip() for line in lock.read_text().splitlines() if line.startswith("torch=="))
        if not pip.is_cuda_build(pin):
            return
        say(
            f"the package index has {pin} only as its CUDA build: several GB more to download. It works\n"
            "  without a GPU; for the small CPU build, stop (Ctrl-C) and set PIP_EXTRA_INDEX_URL to the\n"
            "  address that PyTorch's install page shows under Compute Platform: CPU"
        )
        pip.install(f"{pin}, CUDA build", pin, "-c", str(lock))


def has_nvidia_gpu() -> bool:
    """Say whether a driver shows an NVIDIA GPU."""
    return Path("/dev/nvidia0").exists()


def use_supported_python(version: tuple[int, ...] = sys.version_info[:2]) -> None:
    """Return if this interpreter is fit; otherwise become one that is, from PATH. Raises SetupError."""
    if OLDEST <= version <= NEWEST:
        return
    for minor in range(OLDEST[1], NEWEST[1] + 1):
        other = shutil.which(f"python3.{minor}")
        if other:
            os.execv(other, [other, *sys.argv])
    wanted = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    got = f"{version[0]}.{version[1]}"
    raise SetupError(f"needs Python {wanted}, got {got}; install one, or name it with PYTHON=…")


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder: `make serve` and `make test` may be started at the same time."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another setup of this clone")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def main(root: Path = DEPLOY.parents[1]) -> int:
    """Install, and return the exit code."""
    parser = argparse.ArgumentParser(prog="make setup", description="Install the server into .venv.")
    parser.add_argument("--dev", action="store_true", help="also what the tests need")
    parser.add_argument(
        "--gpu", choices=("auto", "yes", "no"), default="auto", help="auto: yes if there is one"
    )
    options = parser.parse_args()
    try:
        use_supported_python()
        gpu = options.gpu == "yes" or (options.gpu == "auto" and has_nvidia_gpu())
        environment = Environment(root, ["gpu.lock" if gpu else "cpu.lock", *["dev.lock"] * options.dev])
        if environment.is_current():
            return 0
        with alone(root):
            if not environment.is_current():
                environment.install()
                say("done")
    except (SetupError, OSError, subprocess.SubprocessError) as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsetup: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
