"""Native kernels without a compiler: numba's LLVM, run on torch's own OpenMP threads.

A kernel is a function `kernel(words)` over one array of int64: addresses, sizes, and the bits of floats
(`engine.cpu.simd` has its vocabulary). It runs once on every thread of the team; the threads take units of
work from shared counters. Torch's OpenMP runtime is used rather than numba's own threads, because two pools
of threads that wait actively on the same cores slow each other down.

Compiled code is kept on disk, in a folder named after the kernels' source and the processor: a later start
only loads it.
Where numba or the OpenMP runtime is missing, `team()` returns None and the callers stay on torch.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import time
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

CACHE_VARIABLE = "ENGINE_KERNEL_CACHE"
"""Environment variable: the folder for compiled kernels. Default: `kernels` in the user's cache folder."""

CHOICE_VARIABLE = "ENGINE_KERNELS"
"""Environment variable: `torch` keeps everything on torch; anything else takes native kernels where they run."""

_SYMBOLS = ("omp_get_thread_num",)

_COMPLETE = "complete"
"""In a folder of compiled kernels: all of them are there."""

COUNTER_WORDS = 16
"""Words of the counters of one phase (`take` and `done` in `engine.cpu.simd`): two cache lines."""

Kernel = Callable[..., None]


class Team:
    """The threads of torch's OpenMP runtime."""

    def __init__(self, runtime: ctypes.CDLL) -> None:
        self.compile_seconds = 0.0
        self._parallel = runtime.GOMP_parallel
        self._parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        self._parallel.restype = None
        self._kept: dict[Kernel, Any] = {}

    def compile(self, kernel: Kernel) -> Any:
        """Return the address of `kernel` (int), compiled now or loaded from the cache."""
        from numba import cfunc, types  # noqa: PLC0415 — only where kernels run

        if kernel in self._kept:
            return self._kept[kernel].address
        begin = time.perf_counter()
        _use_cache_folder()
        signature = types.void(types.CPointer(types.int64))
        compiled = cfunc(signature, cache=True)(kernel)
        self._kept[kernel] = compiled  # the code is freed with the object
        self.compile_seconds += time.perf_counter() - begin
        return compiled.address

    def run(self, address: int, words: int, threads: int) -> None:
        """Run a compiled kernel on `threads` threads and wait. `words`: address of its array."""
        self._parallel(address, words, threads, 0)


@cache
def team() -> Team | None:
    """Return the team, or None if this machine cannot run native kernels or is told not to."""
    if os.environ.get(CHOICE_VARIABLE) == "torch":
        return None
    path = _openmp()
    if path is None or find_spec("numba") is None:
        return None
    runtime = ctypes.CDLL(path)
    if not all(hasattr(runtime, name) for name in (*_SYMBOLS, "GOMP_parallel")):
        return None
    from llvmlite import binding  # noqa: PLC0415 — comes with numba

    for name in _SYMBOLS:
        binding.add_symbol(name, ctypes.cast(getattr(runtime, name), ctypes.c_void_p).value)
    return Team(runtime)


def describe() -> str:
    """Return what computes here, and why, in one line for the log."""
    if team() is None:
        asked = os.environ.get(CHOICE_VARIABLE) == "torch"
        why = (
            f"{CHOICE_VARIABLE}=torch" if asked else "no numba, or no OpenMP runtime that runs native kernels"
        )
        return f"torch alone: {why}"
    from engine.cpu import target  # noqa: PLC0415 — imports numba

    return f"native, {target.describe()}, {threads()} threads"


def threads() -> int:
    """Return how many threads torch computes with."""
    return torch.get_num_threads()


def _openmp() -> str | None:
    """Return the OpenMP runtime that torch has loaded into this process (Linux)."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return None
    torch.get_num_threads()  # torch is loaded, and with it the runtime
    for line in maps.read_text().splitlines():
        path = line.rpartition(" ")[2]
        if Path(path).name.startswith(("libgomp", "libomp", "libiomp")):
            return path
    return None


def is_cached() -> bool:
    """Say whether `note_cached` was called for these kernels on such a processor."""
    return (_cache_folder() / _COMPLETE).exists()


def note_cached() -> None:
    """Note that every kernel is in the cache."""
    (_cache_folder() / _COMPLETE).touch()


@cache
def _use_cache_folder() -> None:
    """Point numba at our folder; without a folder to write to, numba caches beside the source or fails."""
    from numba import config  # noqa: PLC0415

    folder = _cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    config.CACHE_DIR = str(folder)  # pyright: ignore[reportAttributeAccessIssue] — set at run time


def _cache_folder() -> Path:
    root = Path(os.environ.get(CACHE_VARIABLE) or _user_cache() / "chatserver" / "kernels")
    return root / cache_name()


@cache
def cache_name() -> str:
    """Return a name for the present kernels, compiled here: numba looks at one file when it checks its cache."""
    from llvmlite import __version__, binding  # noqa: PLC0415 — comes with numba

    features = binding.get_host_cpu_features().flatten()
    digest = hashlib.sha256(f"{__version__} {binding.get_host_cpu_name()} {features}".encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
