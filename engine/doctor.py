"""Looks at what the engine needs of a machine. Each probe answers in a line, within its time-out, never raises.

SGLang and torch are not imported: versions come from the installed packages' records, GPUs from nvidia-smi.
`engine.trial` really starts the engine.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

from engine.architecture import FAMILIES, architecture
from engine.contract import ModelUnusable
from engine.models import folder, known_models
from engine.parallelism import Parallelism, ProfileRefused
from engine.plan import GIB, Ask, of_profile, plan
from engine.profile import Profile
from engine.published.tables import MODELS, Gpu, config
from engine.settings import EngineSettings, server_args, window

SMI_SECONDS = 2.0
PLATFORM = "portable_cpu"
_PACKAGES = ("sglang", "torch", "transformers", "tokenizers", "triton")
_LEAST_PYTHON = (3, 11)
_FLAGS = ("avx2", "avx512f", "amx_int8", "asimd", "i8mm")


class Level(StrEnum):
    """How bad a finding is. `fail`: the server cannot run like this."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor: what was looked at, what was found, what to do about it."""

    level: Level
    what: str
    detail: str
    advice: str = ""


def python() -> Finding:
    """Look at the interpreter."""
    version = platform.python_version()
    if sys.version_info[:2] < _LEAST_PYTHON:
        return Finding(
            Level.FAIL, "python", version, "use Python 3.11 or newer: make setup PYTHON=python3.12"
        )
    return Finding(Level.OK, "python", f"{version}, {platform.machine()}")


def processor() -> Finding:
    """Look at the processor: how many, and which instructions the portable engine can use."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = [flag for flag in _FLAGS if flag in _cpu_flags()]
    detail = f"{count} processors, {', '.join(found) or 'no vector instructions known here'}"
    if count < 2:
        return Finding(
            Level.WARN, "processor", detail, "two processors or more keep web and store quick beside it"
        )
    if not {"avx2", "asimd"} & set(found) and platform.system() == "Linux":
        return Finding(
            Level.WARN, "processor", detail, "works, slowly; AVX2 or ARM's NEON is several times faster"
        )
    return Finding(Level.OK, "processor", detail)


def packages() -> Finding:
    """Compare the installed versions with those this program is made for."""
    found, missing = {}, []
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
    detail = ", ".join(f"{name} {version}" for name, version in found.items())
    if missing:
        return Finding(Level.FAIL, "packages", f"{', '.join(missing)} not installed", "run: make setup")
    pinned = _pinned("sglang")
    if pinned and found["sglang"] != pinned:
        return Finding(
            Level.FAIL, "packages", detail, f"this program is made for sglang {pinned}; run: make setup"
        )
    return Finding(Level.OK, "packages", detail)


def platform_plugin() -> Finding:
    """Look whether SGLang will find the portable platform."""
    if any(entry.name == PLATFORM for entry in metadata.entry_points(group="sglang.srt.platforms")):
        return Finding(Level.OK, "platform", f"{PLATFORM} is registered with SGLang")
    return Finding(
        Level.FAIL,
        "platform",
        f"{PLATFORM} is not registered with SGLang",
        "install this program itself: make setup",
    )


def kernels() -> Finding:
    """Look whether native CPU kernels can be made."""
    try:
        return Finding(Level.OK, "kernels", f"numba {metadata.version('numba')}")
    except metadata.PackageNotFoundError:
        return Finding(
            Level.WARN, "kernels", "numba is not installed", "works on torch alone, slower; run: make setup"
        )


def gpus(profile: Profile | None) -> Finding:
    """Look for GPUs and their driver, and whether they are what the profile needs."""
    found, problem = _smi()
    wanted = -(-profile.gpus // profile.nodes) if profile else 0
    if not wanted:
        if found:
            detail = f"{len(found)} x {found[0][0]}, driver {found[0][2]}"
            return Finding(Level.OK, "gpus", f"{detail}; not used without a profile such as PROFILE=gpu1")
        return Finding(
            Level.OK, "gpus", f"none ({problem or 'nvidia-smi lists none'}); the engine runs on the CPU"
        )
    assert profile is not None
    if len(found) < wanted:
        reason = problem or f"nvidia-smi lists {len(found)}"
        advice = "install the NVIDIA driver, or choose another profile (chatserver plan says which fits)"
        return Finding(Level.FAIL, "gpus", f"profile {profile.name} needs {wanted} here: {reason}", advice)
    return Finding(
        Level.OK, "gpus", f"{len(found)} x {found[0][0]}, {found[0][1] >> 30} GiB, driver {found[0][2]}"
    )


def model(name: str, path: Path | None) -> Finding:
    """Look at the model's folder; `path`: where it is or will be, None for the scripted engine."""
    if path is None:
        return Finding(Level.OK, "model", "scripted: answers without a model")
    if not path.is_dir():
        if name in known_models():
            return Finding(Level.OK, "model", f"{name} is prepared at the first start, in {path}")
        names = ", ".join(known_models())
        return Finding(
            Level.FAIL, "model", f"{name} is no folder", f"set MODEL= to a model folder or one of {names}"
        )
    try:
        folder.check(path)
    except (ModelUnusable, OSError) as error:
        ours = name in known_models()
        advice = (
            f"remove {path} and start again" if ours else "fetch it again, or set MODEL= to another folder"
        )
        return Finding(Level.FAIL, "model", str(error), advice)
    return Finding(Level.OK, "model", f"{name} in {path}")


def memory(name: str, path: Path | None, context: int | None, profile: Profile | None) -> Finding:
    """Compare the memory that is free with what the model takes, on this machine's GPUs or in host memory."""
    free = _free_memory()
    if path is None:
        return Finding(Level.OK, "memory", f"{free / GIB:.1f} GiB free")
    try:
        described = _config(name, path)
    except (ModelUnusable, OSError) as error:
        return Finding(
            Level.WARN, "memory", f"{free / GIB:.1f} GiB free; what is needed: {error}", "see model"
        )
    try:
        return _needed(described, path, context, profile, free)
    except ModelUnusable as error:
        return Finding(Level.FAIL, "memory", str(error), "choose another profile, window or model")


def _needed(
    described: dict[str, object], path: Path, context: int | None, profile: Profile | None, free: int
) -> Finding:
    """Raises ModelUnusable if the profile or the window is not for this model."""
    family = described.get("model_type")
    if profile and profile.family not in ("any", family):
        raise ProfileRefused(f"profile {profile.name} is for {profile.family} models, this one is {family}")
    if family not in FAMILIES:
        detail = f"{free / GIB:.1f} GiB free; what the model needs is not known here"
        return Finding(Level.OK, "memory", detail)
    if profile and profile.gpus:
        return _gpu_memory(described, context, profile)
    if profile:
        of_profile(profile, architecture(described), context)
    return _host_memory(described, path, context, free)


def _gpu_memory(described: dict[str, object], context: int | None, profile: Profile) -> Finding:
    found, _ = _smi()
    if not found:
        return Finding(Level.FAIL, "memory", "no GPU to plan for", "see gpus")
    smallest = Gpu("found", min(entry[1] for entry in found), fp8=True)
    parsed = architecture(described)
    result = plan(parsed, smallest, of_profile(profile, parsed, context))
    detail = (
        f"{result.weight_bytes / GIB:.1f} GiB of weights on each GPU, {result.tokens:,} tokens of KV cache"
    )
    if result.fits:
        return Finding(Level.OK, "memory", detail)
    return Finding(Level.FAIL, "memory", detail, "one window does not fit; chatserver plan says what would")


def _host_memory(described: dict[str, object], path: Path, context: int | None, free: int) -> Finding:
    settings = EngineSettings(path, "model", context=context)
    tokens = server_args(settings, window(settings, described))["max_total_tokens"]
    parsed = architecture(described)
    ask = Ask(context or parsed.context, spread=Parallelism(), width=4)
    result = plan(parsed, Gpu("cpu", free, fp8=False, fixed=False), ask)
    needed = result.weight_bytes + tokens * result.kv_token + result.runtime
    detail = f"{free / GIB:.1f} GiB free, the model takes about {needed / GIB:.1f} GiB with {tokens:,} tokens of cache"
    if needed <= free:
        return Finding(Level.OK, "memory", detail)
    return Finding(Level.WARN, "memory", detail, "set a smaller window (CONTEXT=), or stop other programs")


def _config(name: str, path: Path) -> dict[str, object]:
    """Return the model's configuration: its folder's, or the one that will be made."""
    if not path.is_dir() and name in MODELS:
        return config(name)
    return folder.read_json(path / "config.json")


def _smi() -> tuple[list[tuple[str, int, str]], str]:
    """Return (name, memory in bytes, driver) of each GPU, and why there are none."""
    binary = shutil.which("nvidia-smi")
    if binary is None:
        return [], "nvidia-smi is not installed"
    query = [binary, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, check=False, capture_output=True, text=True, timeout=SMI_SECONDS)  # noqa: S603
    except subprocess.TimeoutExpired:
        return [], f"nvidia-smi did not answer within {SMI_SECONDS:g} s"
    except OSError as error:
        return [], f"nvidia-smi cannot run: {error.strerror}"
    if done.returncode:
        return [], " ".join((done.stdout or done.stderr).split())[:120]
    return list(_listed(done.stdout)), ""


def _listed(text: str) -> Iterator[tuple[str, int, str]]:
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 3 and fields[1].isdigit():
            yield fields[0], int(fields[1]) * 2**20, fields[2]


def _cpu_flags() -> set[str]:
    """Return the processor's features, as Linux names them; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return set()
    rows = (line.partition(":") for line in text.splitlines())
    return {flag for key, _, value in rows if key.strip() in ("flags", "Features") for flag in value.split()}


def _free_memory() -> int:
    """Return the bytes that a new process can have: the machine's, or less if a control group allows less."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
        group = Path("/sys/fs/cgroup")
        allowed = (group / "memory.max").read_text().strip()
        if allowed.isdigit():
            free = min(free, int(allowed) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        return free  # not Linux, or no such group
    return free


def _pinned(package: str) -> str | None:
    """Return the exact version that this program requires."""
    try:
        required = metadata.requires("chatserver") or []
    except metadata.PackageNotFoundError:
        return None
    exact = (line.partition("==") for line in required)
    return next(
        (version.partition(";")[0].strip() for name, _, version in exact if name.strip() == package), None
    )
