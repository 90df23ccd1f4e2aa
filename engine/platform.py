"""SGLang on any CPU, as an out-of-tree platform.

SGLang finds `activate` through the entry point `portable_cpu` in group `sglang.srt.platforms` (see
pyproject.toml) when SGLANG_PLATFORM=portable_cpu. Its own CPU engine wants kernels built for AMX or
AVX-512 (so SGLANG_USE_CPU_ENGINE stays unset); this platform declares no kernels and no graphs,
and SGLang then takes its plain torch paths: the real scheduler, batching and radix cache, on any machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from sglang.srt.platforms.cpu import CpuDeviceMixin
from sglang.srt.platforms.device_mixin import PlatformEnum
from sglang.srt.platforms.interface import KVPoolKind, SRTPlatform

from engine.cpu import mla, moe, portable, sampling, speculation, vision_shim

NAME = "portable_cpu"
"""The entry point's name, the value of SGLANG_PLATFORM."""

ATTENTION_BACKEND = portable.ATTENTION


def activate() -> str | None:
    """Return the platform's class, as SGLang's entry point wants it. Called in every SGLang process.

    None unless SGLANG_PLATFORM asks for it by name: where there is a GPU, SGLang is to find that by itself.
    """
    if os.environ.get("SGLANG_PLATFORM") != NAME:
        return None
    vision_shim.install()
    return f"{__name__}:PortableCpuPlatform"


class PortableCpuPlatform(CpuDeviceMixin, SRTPlatform):  # pyright: ignore[reportIncompatibleMethodOverride]
    """A CPU of any make. Capabilities stay at their defaults: no Triton launches, no graphs."""

    _enum = PlatformEnum.OOT

    def get_default_attention_backend(self) -> str:
        """Return the attention back end used when none is asked for."""
        return ATTENTION_BACKEND

    def supports_speculative_algorithm(self, algorithm: str) -> bool:
        """Say whether speculation of this kind runs here: with the model's own draft layer."""
        return algorithm == speculation.ALGORITHM

    def get_speculative_cache_locs_fn(self) -> Callable[..., torch.Tensor]:
        """Return what finds the pool slots of candidates."""
        return speculation.slots_of

    def get_kv_pool_cls(self, *, kind: KVPoolKind) -> type | None:
        """Return the pool whose memory is taken as it is used; None leaves a kind to SGLang."""
        from engine.cpu import pool  # noqa: PLC0415 — at the platform's own import it would be circular

        return {"mha": pool.LazyKeyValuePool, "mla": pool.LazyLatentPool}.get(kind)

    def get_dispatch_key_name(self) -> str:
        """Return the key whose `forward_<key>` methods SGLang's fused operators run here."""
        return "native"

    def is_pin_memory_available(self, device: Any = None) -> bool:
        """Return False: there is no device to pin memory for."""
        return False

    def init_backend(self) -> None:
        """Install the sampler; runs in each worker when the model runner is imported."""
        sampling.register()

    def post_load_model(self, model: torch.nn.Module) -> None:
        """Install attention and expert kernels, and native steps where they cover `model`.

        Here rather than in `init_backend`, where importing SGLang's layers would be circular.
        """
        mla.register("torch_native")  # can still be asked for, to compare
        portable.install(model)
        moe.register()
        speculation.register()
