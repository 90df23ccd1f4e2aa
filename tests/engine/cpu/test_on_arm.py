"""The kernels on 64-bit ARM, where there is such a machine or an emulator with a prepared Python."""

import os
import platform
import shutil
from pathlib import Path

import pytest

from tests.engine.cpu import on_arm

FOLDER = "CHATSERVER_ARM"


@pytest.mark.timeout(1800)
def test_the_kernels_run_on_arm():
    """All tests of the kernels, under qemu-user: compiled there, for its processor."""
    if platform.machine() in ("aarch64", "arm64"):
        pytest.skip("this machine is ARM: the tests beside this one run on it")
    folder = os.environ.get(FOLDER)
    if not folder or not shutil.which(on_arm.EMULATOR):
        pytest.skip(
            f"no ARM here: {FOLDER} names a folder made by `python -m tests.engine.cpu.on_arm prepare`, "
            f"and {on_arm.EMULATOR} runs it"
        )
    done = on_arm.run(Path(folder))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "failed" not in done.stdout
