"""Latent attention (MLA) on the torch-native back end.

SGLang chooses between two ways to compute MLA: expand the latent cache to full heads (MHA, good
for long prefills on GPUs) or absorb the projections and attend in latent space. For a back end it
does not know it takes the Triton rule, which picks MHA for a prefill; the torch-native back end
then reads latent pages as if they were full heads. The absorbed method is right for both phases.
"""

from __future__ import annotations

from typing import Any


def register(backend: str = "torch_native") -> None:
    """Make every MLA layer on `backend` use the absorbed method. Idempotent."""
    from sglang.srt.models.deepseek_common.attention_backend_handler import (  # noqa: PLC0415 — worker only
        AttentionBackendRegistry,
    )
    from sglang.srt.models.deepseek_common.attention_forward_methods.forward_methods import (  # noqa: PLC0415
        AttnForwardMethod,
    )

    def absorbed(attention: Any, batch: Any) -> AttnForwardMethod:
        return AttnForwardMethod.MLA

    AttentionBackendRegistry.register(backend, absorbed)
