"""The page's modules under Node: unit tests, and the types of their JSDoc."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
TSC = HERE / "node_modules" / ".bin" / "tsc"
NODE = shutil.which("node")
LIMIT = 300


def run(*command: str) -> None:
    """Run a command here; fail with what it says."""
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]


@pytest.mark.skipif(
    NODE is None, reason="no node on the PATH: install Node 20 or later to test the page's modules"
)
def test_modules() -> None:
    """Every `*.test.js` here."""
    tests = sorted(str(path.name) for path in HERE.glob("*.test.js"))
    assert tests
    run("node", "--disable-warning=MODULE_TYPELESS_PACKAGE_JSON", "--test", *tests)


@pytest.mark.skipif(
    NODE is None or not TSC.exists(), reason="no tsc: run `npm ci` in tests/web to check the page's types"
)
def test_types() -> None:
    """JSDoc types, checked strictly."""
    run(str(TSC), "--project", "tsconfig.json")
