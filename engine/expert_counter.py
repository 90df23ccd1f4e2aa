"""Counts what SGLang's router decides, in each scheduler process: experts' tokens by layer.

SGLang tells a recorder (`srt/eplb/expert_distribution.py`) which experts every token was given to, in every model
and on every platform, expert parallelism and redundant copies included. Its own recorder is for offline use: it keeps
every pass, writes files when asked, and needs CUDA calls to do so. This one stands before it (or before none) and
adds to one table, which on CPUs is the file that the parent reads: nothing is copied or sent.

On GPUs the addition is part of the captured graphs, and the table is copied to the file every few seconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from engine.experts import FOLDER, HEAD

_COPY_SECONDS = 5.0
"""Between copies of a GPU's table; each waits for the steps that are under way."""
_TARGET = "sglang.srt.eplb.expert_distribution.ExpertDistributionRecorder.init_new"


def install() -> None:
    """Have SGLang use a counter in this process, if the parent asked for it. Call it before the scheduler is made."""
    if os.environ.get(FOLDER) is None:
        return
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType  # noqa: PLC0415 — scheduler only

    HookRegistry.register(_TARGET, _counted, HookType.AFTER)


def _counted(recorder: Any, metadata: Any, rank: int) -> Any:
    """Return a counter before `recorder` where there is something to count."""
    from sglang.srt.runtime_context import get_parallel  # noqa: PLC0415

    # Ranks that share their tokens route them alike: one of them counts.
    if metadata is None or get_parallel().attn_tp_rank != 0:
        return recorder
    file = Path(os.environ[FOLDER]) / f"rank-{get_parallel().tp_rank:05}"
    return ExpertCounter(recorder, file, metadata.num_layers, metadata.num_physical_experts, metadata.ep_size)


class ExpertCounter:
    """SGLang's recorder with counting before it; everything else is the other recorder's."""

    def __init__(self, inner: Any, file: Path, layers: int, experts: int, ranks: int) -> None:
        from sglang.srt.runtime_context import get_device  # noqa: PLC0415 — scheduler only

        self._inner = inner
        self._layer: int | None = None
        self._skipping = False
        size = HEAD + layers * (experts + 1)
        shared = torch.from_file(str(file), shared=True, size=size, dtype=torch.int64)
        shared[:3] = torch.tensor([layers, experts, ranks])
        self._shared = shared[HEAD:]
        device = torch.device(get_device().device)
        self._counts = self._shared if device.type == "cpu" else torch.zeros_like(self._shared, device=device)
        self._columns = experts + 1
        self._one = torch.ones(1, dtype=torch.int64, device=device)
        self._copied = float("-inf")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @contextmanager
    def with_current_layer(self, layer_idx: int) -> Iterator[Any]:
        """Count for this layer within."""
        self._layer = layer_idx
        try:
            with self._inner.with_current_layer(layer_idx) as value:
                yield value
        finally:
            self._layer = None

    @contextmanager
    def disable_this_region(self) -> Iterator[Any]:
        """Count nothing within: a draft model's layers."""
        before, self._skipping = self._skipping, True
        try:
            with self._inner.disable_this_region() as value:
                yield value
        finally:
            self._skipping = before

    @contextmanager
    def with_forward_pass(self, forward_pass_id: int, forward_batch: Any) -> Iterator[Any]:
        """Run a step; at times copy the table to where the parent reads it."""
        if self._copied == float("-inf"):
            self._counts.zero_()  # what warm-up and graph capture routed is no load
            self._copied = 0.0
        with self._inner.with_forward_pass(forward_pass_id, forward_batch) as outputs:
            yield outputs
        if self._counts is not self._shared and time.monotonic() - self._copied > _COPY_SECONDS:
            self._shared.copy_(self._counts)
            self._copied = time.monotonic()

    def on_select_experts(self, topk_ids: torch.Tensor) -> None:
        """Add each (token, expert) pair. topk_ids: [tokens, chosen]; negative ids are padding."""
        if self._layer is not None and not self._skipping:
            # Three operations and no branch: cheap, and graphs can capture them. -1 falls into the first column.
            places = topk_ids.reshape(-1).long() + (self._layer * self._columns + 1)
            self._counts.scatter_add_(0, places, self._one.expand(places.numel()))
        self._inner.on_select_experts(topk_ids)
