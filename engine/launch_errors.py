"""Turns what SGLang or torch say when a start runs out of memory into the setting to change. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from engine.contract import EngineError, ModelUnusable, StartRefused


@dataclass(frozen=True, slots=True)
class _Case:
    """`pattern` is searched in what the start printed; `advice` may use its groups."""

    pattern: re.Pattern[str]
    advice: str


def _case(pattern: str, advice: str) -> _Case:
    return _Case(re.compile(pattern, re.IGNORECASE | re.DOTALL), advice)


_KILLED = "the system killed"
"""How the only advice begins that another start may make needless."""

_CASES = (
    _case(
        r"Loaded weights leave no GPU memory for the KV cache.*?above\s+([0-9.]+)",
        "the weights leave no room for the KV cache: set mem_fraction_static above \\1 in the profile, or use more "
        "GPUs (chatserver plan says how many)",
    ),
    _case(
        r"Not enough memory\. Please try to increase --mem-fraction-static",
        "no room is left for the KV cache: raise mem_fraction_static in the profile, use more GPUs "
        "(chatserver plan says how many), or, on a CPU, stop other programs or take a smaller model",
    ),
    _case(
        r"Capture cuda graph failed",
        "GPU memory ran out while graphs were captured: lower cuda_graph_max_bs_decode, or mem_fraction_static, "
        "in the profile",
    ),
    _case(
        r"Not enough host memory|hierarchical cache.{0,80}host memory",
        "host memory is too small for HiCache: lower hicache_ratio in the profile",
    ),
    _case(
        r"(load_model|load_weights|weight_utils|create_weights).*(CUDA out of memory|OutOfMemoryError)",
        "the weights do not fit the GPU: use more GPUs or a smaller model (chatserver plan says what fits)",
    ),
    _case(
        r"CUDA out of memory|torch\.(cuda\.)?OutOfMemoryError",
        "GPU memory ran out: lower mem_fraction_static or chunked_prefill_size in the profile; "
        "nvidia-smi shows whether another program holds some",
    ),
    _case(
        r"DefaultCPUAllocator.*(can't allocate|not enough) memory|not enough memory: you tried to allocate"
        r"|Cannot allocate memory|\bMemoryError\b",
        "host memory ran out: set a smaller window (CHATSERVER_CONTEXT), of which the KV cache holds four, "
        "or take a smaller model",
    ),
    _case(
        r"can't start new thread",
        "the system gave no memory for another thread: raise the limit on this program's memory (ulimit -v) or "
        "processes (ulimit -u), set a smaller window (CHATSERVER_CONTEXT), or take a smaller model",
    ),
    _case(
        # -6: what C++ does without memory. SGLang explains -9 after any other code, too.
        r"exit ?code:? -[69]\b|exited with -[69]\b|Out of memory: Killed",
        f"{_KILLED} the scheduler, most likely because host memory ran out: set a smaller window (CHATSERVER_CONTEXT), "
        "take a smaller model, or stop other programs",
    ),
)
"""In order: the more telling first; a killed scheduler says nothing itself."""


_RAISED = re.compile(r"^(?:\w+\.)*((\w*(?:Error|Exception)): .+)$", re.MULTILINE)
"""The last line of a traceback, and its type."""
_CERTAIN = re.compile(
    "(Value|Type|Key|Index|Attribute|Assertion|NotImplemented|Import|ModuleNotFound|Safetensor)Error"
)
"""Types that mean the model or a setting: the next start raises them again. Others may be the machine's, for once."""
_LONGEST = 400


def advice(text: str) -> str | None:
    """Return what to change if `text`, of an error or a log, tells of memory that ran out; None if it does not."""
    for case in _CASES:
        if found := case.pattern.search(text):
            return found.expand(case.advice)
    return None


def explained(error: EngineError, log: str) -> EngineError:
    """Return an error that says what to change, if `error` or the schedulers' `log` tell of memory.

    Else what the schedulers died of, if the log has it and `error` does not; else `error` itself. It is StartRefused
    where the next start would end in the same way.
    """
    if isinstance(error, ModelUnusable) and not advice(str(error)):
        return error
    first = str(error).partition(". ")[0]
    if found := advice(f"{log}\n{error}"):
        return (EngineError if found.startswith(_KILLED) else StartRefused)(f"{found} (said: {first})")
    raised = _RAISED.findall(log)
    certain = [reason for reason, kind in raised if _CERTAIN.fullmatch(kind)]
    # Ranks write to one log: what one died of counts for more than the complaints of those that lost it.
    reason = (certain or [reason for reason, _ in raised] or [""])[-1]
    text = str(error) if reason in str(error) else f"{first}: {reason[:_LONGEST]}"
    if certain:
        return StartRefused(text)
    return EngineError(text) if text != str(error) else error
