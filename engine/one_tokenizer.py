"""One tokenizer a scheduler, where SGLang loads the same one twice: for the scheduler and for its worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sglang.srt.plugins.hook_registry import HookRegistry, HookType

_LOAD = "sglang.srt.utils.hf_transformers.tokenizer.get_tokenizer"


def install() -> None:
    """Have this process keep each tokenizer that it loads. Before the scheduler is made."""
    kept: dict[str, Any] = {}

    def load_once(load: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        key = repr((args, sorted(kwargs.items())))
        if key not in kept:
            kept[key] = load(*args, **kwargs)
        return kept[key]

    HookRegistry.register(_LOAD, load_once, HookType.AROUND)
