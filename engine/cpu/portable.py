"""What the platform installs in each worker: our attention back end, and native kernels where they run."""

from __future__ import annotations

import torch

from engine.cpu import native

ATTENTION = "portable"
"""Our attention back end's name, the value of SGLang's `attention_backend`."""


def install(model: torch.nn.Module) -> None:
    """Register the back end and take over `model` if the kernels cover it.

    Call it once a worker, after the model is loaded and before attention is set up (SGLang's
    `post_load_model`). The imports wait until then: at the platform's own import they would be circular.
    """
    from engine.cpu import attention, llama, mla  # noqa: PLC0415

    attention.register()
    mla.register(ATTENTION)
    llama.install(model)


def warm() -> None:
    """Compile all kernels into the cache on disk, if they are not there: some seconds, once a machine.

    Worth doing beside the preparation of a model; a start that finds no cache compiles by itself.
    """
    team = native.team()
    if team is None:
        return
    from engine.cpu import attention_kernels, linear_kernels, llama_kernels  # noqa: PLC0415 — imports numba

    for kernel in (
        attention_kernels.attend_float,
        attention_kernels.attend_bfloat,
        linear_kernels.multiply,
        llama_kernels.forward,
    ):
        team.compile(kernel)
