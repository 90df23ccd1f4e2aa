"""How the real engine runs: one frozen class, and what SGLang must find in the environment.

Nothing here imports SGLang or torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.contract import ModelUnusable

_FULL_WINDOWS = 4
"""Full windows that the default KV pool holds on a CPU."""
_SLOWEST_PREFILL = {"cpu": 50.0, "gpu": 1000.0}
"""Prompt tokens a second; what is slower is taken for stuck. Two cores compute ten times as many."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What to serve and with how much.

    `context`: window in tokens, None = the model's own. `kv_tokens`: size of the KV pool in tokens,
    None = 4 windows on a CPU. `max_running`: requests in one batch. `max_queued`: requests that wait
    inside SGLang before it answers EngineBusy. `prefill_chunk`: prompt tokens a step computes at most.
    `threads`: of each scheduler process, None = all processors divided by `tp`. `log_level`: of SGLang,
    on standard error; its warnings are mostly about GPUs that are not there. `start_timeout` in seconds.
    `silence`: seconds without a token after which a request is ended (a long prompt gets more, see `patience`),
    and without any sign of life after which the schedulers are taken for lost.
    `extra`: further arguments of SGLang's ServerArgs, which win over everything here.
    """

    model_path: Path
    name: str
    aliases: tuple[str, ...] = ()
    context: int | None = None
    kv_tokens: int | None = None
    dtype: str = "float32"
    tp: int = 1
    ep: int = 1
    threads: int | None = None
    max_running: int = 32
    max_queued: int = 256
    prefill_chunk: int = 2048
    device: str = "cpu"
    log_level: str = "error"
    start_timeout: float = 600.0
    silence: float = 120.0
    extra: Mapping[str, Any] = field(default_factory=dict)


def patience(settings: EngineSettings, prompt: int) -> float:
    """Return how many seconds a request may be without a token. `prompt`: its length in tokens."""
    return settings.silence + prompt / _SLOWEST_PREFILL["cpu" if settings.device == "cpu" else "gpu"]


def window(settings: EngineSettings, config: dict[str, Any]) -> int:
    """Return the window to ask SGLang for. Raises ModelUnusable if the model's is smaller."""
    longest = config.get("max_position_embeddings")
    if settings.context is None:
        if not isinstance(longest, int):
            raise ModelUnusable(
                f"{settings.model_path / 'config.json'} has no max_position_embeddings: set the context"
            )
        return longest
    if isinstance(longest, int) and settings.context > longest:
        raise ModelUnusable(
            f"a context of {settings.context} tokens was asked for, {settings.name} has {longest}"
        )
    return settings.context


def server_args(settings: EngineSettings, context: int) -> dict[str, Any]:
    """Return the keyword arguments of SGLang's Engine. `context`: the window in tokens."""
    args: dict[str, Any] = {
        "model_path": str(settings.model_path),
        "served_model_name": settings.name,
        "device": settings.device,
        "dtype": settings.dtype,
        "context_length": context,
        "tp_size": settings.tp,
        "ep_size": settings.ep,
        "max_running_requests": settings.max_running,
        "max_queued_requests": settings.max_queued,
        "chunked_prefill_size": settings.prefill_chunk,
        "log_level": settings.log_level,
        "random_seed": 0,
        "incremental_streaming_output": True,  # chunks are what is new, not all so far
        "allow_auto_truncate": False,  # it would cut the end of a prompt
        "sleep_on_idle": True,  # without it an idle scheduler spins on a whole core
        "load_snapshot_publish_interval": 1,
        "constrained_json_disable_any_whitespace": True,  # small models would write white space until the bound
    }
    if settings.device == "cpu":
        _refuse_groups(settings.extra)
        args |= {
            "attention_backend": "portable",
            "sampling_backend": "pytorch",
            "max_total_tokens": settings.kv_tokens or _FULL_WINDOWS * context,
            **_speculation(settings.extra),
        }
    elif settings.kv_tokens is not None:
        args["max_total_tokens"] = settings.kv_tokens
    return args | dict(settings.extra)


def _refuse_groups(extra: Mapping[str, Any]) -> None:
    """Raise ModelUnusable for attention groups: SGLang hands rows from group to group by a Triton kernel."""
    for key in ("attn_dp_size", "dp_size"):
        if extra.get(key, 1) != 1:
            raise ModelUnusable(f"{key}: expected 1 on a CPU, got {extra[key]}: attention groups need a GPU")


def _speculation(extra: Mapping[str, Any]) -> dict[str, int]:
    """Return the one way in which speculation runs on a CPU (see `engine.cpu.speculation`), nothing without it.

    Raises ModelUnusable for any other way.
    """
    if extra.get("speculative_algorithm") is None:
        return {}
    wanted = {"speculative_num_steps": 1, "speculative_eagle_topk": 1, "speculative_num_draft_tokens": 2}
    for key, value in wanted.items():
        if (given := extra.get(key, value)) != value:
            raise ModelUnusable(f"{key}: expected {value} on a CPU, got {given}")
    return wanted


def prepare_environment(settings: EngineSettings, environ: MutableMapping[str, str] = os.environ) -> None:
    """Set what SGLang and torch read from the environment; must run before either is imported.

    Modifies `environ`. What a user has set stays, but for the platform's name.
    """
    environ.setdefault("HF_HUB_OFFLINE", "1")  # a model is a folder here; nothing is fetched
    environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # A leak is reported by `health`, and costs as many tokens; SGLang would end the scheduler and all its answers.
    environ.setdefault("SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE", "0")
    environ.setdefault("TQDM_DELAY", "10")  # seconds until a scheduler shows its bar of weights
    environ.setdefault("PYTHONWARNINGS", "ignore")  # child processes: which GPUs SGLang did not find
    if settings.device != "cpu":
        return
    environ["SGLANG_PLATFORM"] = "portable_cpu"
    # SGLang compiles some small functions (routing, the divided vocabulary) in the first step that calls them: 3 to
    # 6 s in which a scheduler answers nothing, with the system's C++ compiler, for steps that are no faster.
    environ.setdefault("TORCH_COMPILE_DISABLE", "1")
    environ.setdefault("SGLANG_EXTERNAL_MODEL_PACKAGE", "engine.cpu.models")
    environ.pop("SGLANG_USE_CPU_ENGINE", None)
    # By default threads that wait for each other spin. Where web, store and browser want the same cores that
    # costs most of the speed: 3 against 18 tokens/s on two cores with a load of 4.
    environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    processors = _processors()
    threads = settings.threads or max(1, len(processors) // settings.tp)
    environ.setdefault("OMP_NUM_THREADS", str(threads))
    if settings.tp > 1:
        # Without it SGLang wants a NUMA node for each rank.
        environ.setdefault("SGLANG_CPU_OMP_THREADS_BIND", _bind(processors, settings.tp))


def _processors() -> list[int]:
    """Return the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _bind(processors: list[int], ranks: int) -> str:
    """Return the processors of each rank, as in `0,1|2,3`; ranks share them if there are too few."""
    share = max(1, len(processors) // ranks)
    groups = [
        [processors[(rank * share + i) % len(processors)] for i in range(share)] for rank in range(ranks)
    ]
    return "|".join(",".join(map(str, group)) for group in groups)
