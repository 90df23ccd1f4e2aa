"""Runs the tests of the kernels on 64-bit ARM, emulated by qemu-user where this machine is another.

    python -m tests.engine.cpu.on_arm prepare FOLDER     Debian's arm64 Python and aarch64 wheels into FOLDER: 1 GB
    python -m tests.engine.cpu.on_arm FOLDER             the tests, under `qemu-aarch64`

`prepare` wants apt-get, dpkg-deb and pip, and installs nothing on this machine. On an ARM machine plain pytest does.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from importlib import metadata, util
from pathlib import Path

EMULATOR = "qemu-aarch64"
TESTS = (
    "test_linear",
    "test_exponentials",
    "test_decode_attention",
    "test_packing",
    "test_llama_steps",
    "test_choice",
)
"""Tests of all kernels that need torch and numba alone."""

_PYTHON = "3.11"
_DEBIAN = (
    *(
        f"{name}python{_PYTHON}-{kind}"
        for name, kind in (("", "minimal"), ("lib", "minimal"), ("lib", "stdlib"))
    ),
    *(
        "libc6",
        "libgcc-s1",
        "libstdc++6",
        "libgomp1",
        "zlib1g",
        "libexpat1",
        "libffi8",
        "libbz2-1.0",
        "liblzma5",
    ),
    *("libssl3", "libuuid1", "libcrypt1"),
)
_TORCH = "2.9.1"
"""The last whose aarch64 wheel on the registry has no GPU libraries."""
_PURE = (
    *("filelock", "typing_extensions", "sympy", "mpmath", "networkx", "jinja2", "fsspec", "markupsafe"),
    *("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "py"),
)
"""What torch and pytest import, in Python alone: taken from this environment."""


def prepare(folder: Path) -> None:
    """Fill `folder`: root (Debian), site (packages)."""
    packages, wheels, site = folder / "packages", folder / "wheels", folder / "site"
    for part in (packages, wheels, site, folder / "root", folder / "apt/lists/partial", folder / "apt/cache"):
        part.mkdir(parents=True, exist_ok=True)
    (folder / "apt/status").touch()
    apt = ["-oAPT::Architecture=arm64", "-oAPT::Architectures=arm64", f"-oDir::State={folder}/apt"]
    apt += [f"-oDir::State::status={folder}/apt/status", f"-oDir::Cache={folder}/apt/cache"]
    subprocess.run(["apt-get", *apt, "-qq", "update"], check=False)  # sources without arm64 are an error
    subprocess.run(["apt-get", *apt, "download", *_DEBIAN], cwd=packages, check=True)
    for package in packages.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, folder / "root"], check=True)
    wanted = [f"{name}=={metadata.version(name)}" for name in ("numba", "llvmlite", "numpy")]
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (17, 27, 28)]
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--only-binary=:all:",
        "-d",
        str(wheels),
    ]
    subprocess.run([*pip, f"--python-version={_PYTHON}", *platforms, *wanted, f"torch=={_TORCH}"], check=True)
    for wheel in wheels.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(site)
    for name in _PURE:
        _link(name, site)


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the tests; the environment's ENGINE_VECTORS chooses among those of ARM."""
    here = Path(__file__).parent
    repository = here.parents[2]
    environ = {
        **os.environ,
        "QEMU_LD_PREFIX": str(folder / "root"),
        "PYTHONPATH": f"{repository}:{folder / 'site'}",
        "ENGINE_KERNEL_CACHE": str(folder / "kernels"),
    }
    tests = [str(here / f"{name}.py") for name in TESTS]
    options = ["-q", "-p", "no:cacheprovider", "--noconftest", "-c", os.devnull, f"--rootdir={repository}"]
    return subprocess.run(
        [EMULATOR, str(folder / f"root/usr/bin/python{_PYTHON}"), "-S", "-m", "pytest", *options, *tests],
        env=environ,
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )


def _link(name: str, site: Path) -> None:
    """Let `site` have a package of this environment."""
    found = util.find_spec(name)
    if found is None or found.origin is None:
        raise SystemExit(f"{name} is not installed here: run make setup")
    source = Path(found.origin)
    source = source.parent if source.name == "__init__.py" else source
    place = site / source.name
    place.unlink(missing_ok=True)
    place.symlink_to(source)


if __name__ == "__main__":
    if sys.argv[1:2] == ["prepare"]:
        prepare(Path(sys.argv[2]).resolve())
    else:
        done = run(Path(sys.argv[1]).resolve())
        print(done.stdout[-4000:], done.stderr[-4000:])
        sys.exit(done.returncode)
