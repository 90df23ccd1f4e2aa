"""Has SGLang itself validate a profile, on a machine with or without GPUs.

    python -m engine.profile_check MODEL PROFILE...

For each profile: its command line goes through SGLang's own parser (names, types, choices), then ServerArgs is
resolved and checked as at a launch (combinations, model, platform), with the model's real configuration. Only
the probes of the machine are replaced, by what the profile's GPU would answer. Prints one JSON line a profile;
the exit code is 1 if one was refused. SGLang is imported, which takes seconds: use `check_in_subprocess`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from engine.cpu import vision_shim
from engine.models.folder import read_json
from engine.parallelism import ProfileRefused
from engine.profile import Profile, load
from engine.published.tables import GPUS, MODELS, config
from engine.settings import EngineSettings, prepare_environment, server_args

CHECK_SECONDS = 120.0
_NODE = {"node_rank": 0, "dist_init_addr": "127.0.0.1:20000"}
_HOPPER = {
    "is_cuda": True,
    "is_sm90": True,
    "is_hopper_with_cuda_12_3": True,
    "is_sm100": False,
    "is_blackwell": False,
    "device_sm": 90,
    "device_capability": (9, 0),
    "has_flashinfer": True,
}
"""What SGLang's probes answer on a Hopper GPU."""


def check_in_subprocess(profile: Profile, model: str) -> dict[str, Any]:
    """Return the resolved arguments. Raises ProfileRefused with SGLang's reason. Blocks for seconds."""
    name = profile.source or profile.name
    command = [sys.executable, "-m", "engine.profile_check", model, name]
    try:
        done = subprocess.run(  # noqa: S603 - ourselves
            command, check=False, capture_output=True, text=True, timeout=CHECK_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise ProfileRefused(f"SGLang did not finish checking {name} within {CHECK_SECONDS:.0f} s") from None
    try:
        answer = json.loads(done.stdout.strip().rpartition("\n")[2])
    except ValueError:
        last = done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
        raise ProfileRefused(f"SGLang could not be asked about {name}: {last}") from None
    if "error" in answer:
        raise ProfileRefused(answer["error"])
    return answer["resolved"]


def main(arguments: Sequence[str]) -> int:
    """Check profiles; return the exit code."""
    model, *profiles = arguments
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(_config(model)))
        for name in profiles:
            answer = _answer(name, folder)
            failed |= "error" in answer
            print(json.dumps({"profile": name, **answer}), flush=True)
    return int(failed)


def _config(model: str) -> dict[str, Any]:
    return config(model) if model in MODELS else read_json(Path(model).expanduser() / "config.json")


def _answer(name: str, folder: str) -> dict[str, Any]:
    """Return {"resolved": …} or {"error": one line}."""
    try:
        profile = load(name)
        with _environment(profile):
            return {"resolved": _resolve(profile, folder)}
    except (ValueError, AssertionError, NotImplementedError, RuntimeError, ProfileRefused) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        return {"error": f"profile {name}: {first}"}


def _resolve(profile: Profile, folder: str) -> dict[str, Any]:
    vision_shim.install()  # before SGLang, as in its own processes
    from sglang.srt.runtime_context import override_platform  # noqa: PLC0415
    from sglang.srt.server_args import ServerArgs  # noqa: PLC0415

    on_gpu = profile.gpus > 0
    with override_platform(**_HOPPER) if on_gpu else contextlib.nullcontext(), _machine(profile, on_gpu):
        _parse(ServerArgs, profile, folder)
        given = _embedded(profile, folder) if profile.runs == "engine" else {"model_path": folder}
        arguments = ServerArgs(**{**given, **profile.arguments, **_per_node(profile)})
        arguments.resolve_once()
        arguments.check_server_args()
        return {
            key: value
            for key, value in arguments.resolved_dict().items()
            if _plain(value) and value is not None
        }


def _embedded(profile: Profile, folder: str) -> dict[str, Any]:
    """Return what the embedded engine would give to SGLang."""
    environ = {variable: str(_NODE[key]) for key, variable in profile.per_node.items()}
    settings = profile.engine_settings(EngineSettings(Path(folder), "model"), environ)
    return server_args(settings, settings.context or profile.arguments.get("context_length") or 1024)


def _parse(server_arguments: Any, profile: Profile, folder: str) -> None:
    """Raise ProfileRefused unless SGLang's parser takes the command line and reads the same values."""
    parser = _Parser(allow_abbrev=False)
    server_arguments.add_cli_args(parser)
    words = profile.command(folder)[3:]
    for key, variable in profile.per_node.items():
        words = [str(_NODE[key]) if word == f"${variable}" else word for word in words]
    parsed = vars(parser.parse_args(words))
    for key, value in profile.arguments.items():
        if parsed.get(key) != value or type(parsed[key]) is not type(value):
            raise ProfileRefused(f"sglang.{key}: SGLang reads {parsed.get(key)!r}, not {value!r}")


def _per_node(profile: Profile) -> dict[str, Any]:
    return {key: _NODE[key] for key in profile.per_node}


@contextlib.contextmanager
def _environment(profile: Profile) -> Iterator[None]:
    """Set a profile's variables; take back what SGLang adds, so that profiles do not meet."""
    before = dict(os.environ)
    os.environ.update(profile.environment)
    if not profile.gpus:
        prepare_environment(EngineSettings(Path(), "model"))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _machine(profile: Profile, on_gpu: bool) -> Iterator[None]:
    """Let SGLang find the profile's machine in place of this one."""
    if not on_gpu:
        yield
        return
    from sglang.srt import platforms  # noqa: PLC0415
    from sglang.srt.arg_groups import memory_hook  # noqa: PLC0415
    from sglang.srt.platforms.cuda import CudaSRTPlatform  # noqa: PLC0415

    memory = GPUS[profile.gpu or "H200"].memory / 2**20
    kept = platforms._current_platform, memory_hook.get_device_memory_capacity
    platforms._current_platform = CudaSRTPlatform()
    memory_hook.get_device_memory_capacity = lambda device: memory
    try:
        yield
    finally:
        platforms._current_platform, memory_hook.get_device_memory_capacity = kept


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise instead of ending the process."""
        raise ProfileRefused(message)


def _plain(value: Any) -> bool:
    return isinstance(value, (str, int, float, bool))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
