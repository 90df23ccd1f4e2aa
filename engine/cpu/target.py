"""Which vectors the native kernels are compiled for: chosen once, before the first of them is compiled.

    name     lanes   registers   processors
    avx512   16      32          x86-64 with AVX-512F and VL; 512 bits also where LLVM would prefer 256
    avx2     8       16          x86-64 with AVX2 and FMA
    neon     8       32          64-bit ARM; a vector is two registers
    plain    4       16          everything else

`lanes` are float32 numbers of one vector, `together` how many of them times four sums stay in registers. ENGINE_VECTORS
takes a narrower set than the processor has (to compare, or on processors that slow down in wide vectors).

A processor with AMX gets avx512: AMX multiplies bfloat16 and bytes only, and float32 results would not be exact. In
bfloat16 products are torch's, whose library takes AMX by itself. SGLang's own back end for AMX (`intel_amx`) wants its
kernels built from source, which no package has; it is not chosen.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache

from llvmlite import binding
from numba import config

VARIABLE = "ENGINE_VECTORS"
"""Environment variable: the name of a target; unset takes the widest that the processor has."""

_ARM = ("aarch64", "arm64")
_TOLD = ("avx2", "fma", "avx512f", "avx512vl", "avx512bf16", "amx-tile", "amx-bf16", "neon", "sve")
"""What the log says of a processor, in LLVM's words."""


@dataclass(frozen=True, slots=True)
class Target:
    """A set of vector instructions. `together`: tokens that are multiplied together with four rows."""

    name: str
    lanes: int
    together: int
    cpu: str = ""
    """The processor that LLVM compiles for, where that is not the one it finds here."""
    flags: str = ""
    """LLVM's features to add to those of the processor."""


AVX512 = Target("avx512", 16, 4, "x86-64-v4", "-prefer-256-bit")
AVX2 = Target("avx2", 8, 2, "x86-64-v3")
NEON = Target("neon", 8, 2)
PLAIN = Target("plain", 4, 2, "x86-64-v2" if platform.machine() in ("x86_64", "AMD64") else "")
TARGETS = {target.name: target for target in (AVX512, AVX2, NEON, PLAIN)}


def targets_here() -> tuple[Target, ...]:
    """Return what this processor can run, widest first."""
    if platform.machine() in _ARM:
        return NEON, PLAIN
    has = set(_features().split(","))
    middle = (AVX2,) if {"+avx2", "+fma"} <= has else ()
    wide = (AVX512,) if middle and {"+avx512f", "+avx512vl"} <= has else ()
    return (*wide, *middle, PLAIN)


@cache
def target() -> Target:
    """Return the chosen target, and make numba compile for it. Raises ValueError for one that cannot run here."""
    here = targets_here()
    wanted = os.environ.get(VARIABLE) or here[0].name
    chosen = next((one for one in here if one.name == wanted), None)
    if chosen is None:
        raise ValueError(f"{VARIABLE}: expected one of {', '.join(one.name for one in here)}, got {wanted!r}")
    _compile_for(chosen, narrower=chosen is not here[0])
    return chosen


def describe() -> str:
    """Return the choice and its grounds, for the log."""
    chosen, has = target(), set(_features().split(","))
    here = "64-bit ARM" if platform.machine() in _ARM else platform.machine()
    found = " ".join(name for name in _TOLD if f"+{name}" in has)
    amx = "; AMX is left to torch, for bfloat16" if "+amx-tile" in has else ""
    return f"{chosen.name} vectors, {chosen.lanes} floats each ({here}{': ' if found else ''}{found}{amx})"


def _compile_for(chosen: Target, *, narrower: bool) -> None:
    if narrower:
        _set("CPU_NAME", chosen.cpu or "generic")
        _set("CPU_FEATURES", chosen.flags)
    elif chosen.flags:
        _set("CPU_FEATURES", f"{_features()},{chosen.flags}")


def _features() -> str:
    """Return what numba would compile for, in LLVM's notation."""
    told = config.CPU_FEATURES  # pyright: ignore[reportAttributeAccessIssue] — set at run time
    return binding.get_host_cpu_features().flatten() if told is None else told


def _set(name: str, value: str) -> None:
    if getattr(config, name) is None:  # numba's own variables win
        setattr(config, name, value)
