"""What the platform installs in each worker: our attention back end, and native kernels where they run."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable

import torch

from engine.cpu import native

ATTENTION = "portable"
"""Our attention back end's name, the value of SGLang's `attention_backend`."""

_log = logging.getLogger(__name__)


def install(model: torch.nn.Module) -> None:
    """Register the back end and take over `model` if the kernels cover it.

    Call it once a worker, after the model is loaded and before attention is set up (SGLang's
    `post_load_model`). The imports wait until then: at the platform's own import they would be circular.
    """
    from engine.cpu import attention, llama, mla  # noqa: PLC0415

    _log.info("kernels: %s", native.describe())
    attention.register()
    mla.register(ATTENTION)
    if llama.install(model):
        _trim()


def warm(report: Callable[[int, int, str], None] = lambda done, total, text: None) -> None:
    """Compile all kernels into the cache on disk, if they are not there: some seconds, once a machine.

    report: called with (done, total, text) before each. Done when a model is prepared; a start that finds no
    cache compiles by itself.
    """
    team = native.team()
    if team is None or native.is_cached():
        return
    kernels = _kernels()
    for done, kernel in enumerate(kernels):
        report(done, len(kernels), "compiling kernels")
        team.compile(kernel)
    native.note_cached()


def preload() -> None:
    """Load the compiled kernels into this process, if they are in the cache: processes forked from it have them."""
    team = native.team()
    if team is not None and native.is_cached():
        for kernel in _kernels():
            team.compile(kernel)


def _kernels() -> tuple[native.Kernel, ...]:
    from engine.cpu import attention_kernels, linear_kernels, llama_kernels  # noqa: PLC0415 — imports numba

    return (
        attention_kernels.attend_float,
        attention_kernels.attend_bfloat,
        linear_kernels.multiply,
        llama_kernels.forward,
    )


def _trim() -> None:
    """Give freed memory back to the system, which glibc keeps for later otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
