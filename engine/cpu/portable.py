"""What the platform installs in each worker: our attention back end, and native kernels where they run."""

from __future__ import annotations

import torch

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
