"""`chatserver plan`: does a model fit on some GPUs, how much fits beside it, and how fast others ran it.

The arithmetic is `engine.plan`; this reads the options and prints. Exit code 0: it fits; 1: it does not.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatserver.errors import StartupError

if TYPE_CHECKING:
    from engine.architecture import Architecture
    from engine.parallelism import Parallelism
    from engine.plan import Plan
    from engine.profile import Profile
    from engine.published.tables import Gpu

HELP = "say whether a model fits on some GPUs, what fits beside it, and which settings to use"
_GPUS = re.compile(r"(?:(\d{1,4})x)?(\d{1,4})x([A-Za-z][A-Za-z0-9-]*)")
"""Nodes, GPUs of a node, kind; without nodes: GPUs, kind."""
_MOST_GPUS = 9999
_LENGTH = re.compile(r"(\d{1,9})([kKmM]?)")
_OWN = ("ep", "redundant_experts", "attention_dp", "no_draft")
"""Options that make a spread of one's own; a profile has decided all of them."""
_UNITS = {"": 1, "k": 1024, "m": 1024 * 1024}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `chatserver plan`."""
    add = parser.add_argument
    add(
        "--model",
        default="deepseek-v3",
        help="deepseek-v3, a model of ours, or a model folder (default: deepseek-v3)",
    )
    add("--gpus", metavar="COUNTxKIND", help="GPUs: 8xH200, 2x8xH800; or cpu for this machine's memory")
    add("--context", metavar="TOKENS", help="window, such as 128k (default: the profile's, else the model's)")
    add(
        "--ep",
        type=int,
        metavar="RANKS",
        help="ranks among which the experts are divided (default: all GPUs)",
    )
    add("--redundant-experts", type=int, metavar="COUNT", help="spare copies of the busiest experts")
    add(
        "--attention-dp",
        type=int,
        metavar="GROUPS",
        help="groups with conversations of their own (default: all GPUs)",
    )
    add(
        "--kv-dtype",
        metavar="TYPE",
        help="auto, bfloat16, fp8_e4m3 or fp8_e5m2 (default: the profile's, else auto)",
    )
    add("--no-draft", action="store_true", help="without speculation by the model's draft layer")
    add(
        "--profile",
        metavar="NAME",
        help="a profile, or a .toml file (default: one that fits the GPUs, if there is)",
    )
    add(
        "--check", action="store_true", help="also have the profile validated by SGLang itself; takes seconds"
    )
    add("--json", action="store_true", help="print JSON")


def run(options: Mapping[str, Any]) -> int:
    """Plan, print, and return the exit code. Raises StartupError for what cannot be planned."""
    from chatserver.service.operation import capacity_text  # noqa: PLC0415 - only where a plan is made
    from engine.contract import ModelUnusable  # noqa: PLC0415

    try:
        profile, plan = _plan(options)
        if options["check"]:
            _check(profile, str(options["model"]))
    except ModelUnusable as error:
        raise StartupError(str(error), exit_code=2) from error
    model = str(options["model"])
    if options["json"]:
        print(json.dumps(capacity_text.as_json(model, plan, profile), indent=2))
    else:
        print("\n".join(capacity_text.lines(model, plan, profile)))
    return 0 if plan.fits else 1


def _plan(options: Mapping[str, Any]) -> tuple[Profile | None, Plan]:
    from dataclasses import replace  # noqa: PLC0415 - see the module

    from engine.plan import default_ask, made_for, of_profile, plan  # noqa: PLC0415

    model = _architecture(str(options["model"]))
    context = _length(options["context"]) if options["context"] else None
    profile = _named(options)
    gpu, count = _hardware(options, profile)
    custom = any(_given(options[name]) for name in _OWN)
    spread = _spread(model, count, options) if custom else None
    made = profile or made_for(model, gpu, count)
    if made is not None and (spread is None or spread == made.parallelism):
        profile, ask = made, of_profile(made, model, context)
    else:
        ask = default_ask(gpu, spread or _spread(model, count, options), context or model.context)
    if options["kv_dtype"]:
        ask = replace(ask, kv_dtype=options["kv_dtype"])
    return profile, plan(model, gpu, ask)


def _spread(model: Architecture, count: int, options: Mapping[str, Any]) -> Parallelism:
    """Return the spread over `count` GPUs that the options ask for, the usual one where they say nothing."""
    from engine.plan import default_spread  # noqa: PLC0415

    spread = default_spread(
        model, count, ep=options["ep"], redundant=options["redundant_experts"], draft=not options["no_draft"]
    )
    return spread if options["attention_dp"] is None else _regroup(spread, options["attention_dp"])


def _architecture(name: str) -> Architecture:
    """Return a model that is published here, or that of a folder."""
    from engine.architecture import architecture  # noqa: PLC0415
    from engine.models.folder import read_json  # noqa: PLC0415
    from engine.published.tables import MODELS, config  # noqa: PLC0415

    if name in MODELS:
        return architecture(config(name))
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise StartupError(
            f"--model: expected one of {', '.join(MODELS)}, or a model folder, got {name!r}", exit_code=2
        )
    return architecture(read_json(folder / "config.json"))


def _named(options: Mapping[str, Any]) -> Profile | None:
    from engine.profile import load  # noqa: PLC0415

    if options["profile"] is None:
        return None
    for option in _OWN:
        if _given(options[option]):
            flag = f"--{option.replace('_', '-')}"
            raise StartupError(f"{flag}: the profile decides; give one or the other", exit_code=2)
    return load(str(options["profile"]))


def _hardware(options: Mapping[str, Any], profile: Profile | None) -> tuple[Gpu, int]:
    """Return the kind of GPU and how many; a profile's own where no option says."""
    from engine.published.tables import GPUS  # noqa: PLC0415

    text = options["gpus"]
    if text is None:
        if profile is None or (profile.gpus and profile.gpu is None):
            raise StartupError("--gpus: expected GPUs such as 8xH200, or cpu", exit_code=2)
        return (GPUS[profile.gpu], profile.gpus) if profile.gpu else (_host(), 1)
    if text == "cpu":
        gpu, count = _host(), 1
    else:
        match = _GPUS.fullmatch(text)
        kinds = {name.lower(): name for name in GPUS}
        count = int(match[1] or 1) * int(match[2]) if match else 0
        if match is None or match[3].lower() not in kinds or not 0 < count <= _MOST_GPUS:
            raise StartupError(
                f"--gpus: expected 1 to {_MOST_GPUS} of {', '.join(GPUS)}, such as 8xH200 or 2x8xH800, or cpu, "
                f"got {text!r}",
                exit_code=2,
            )
        gpu = GPUS[kinds[match[3].lower()]]
    if profile is not None and count != max(1, profile.gpus):
        raise StartupError(
            f"--gpus: profile {profile.name} is for {profile.gpus} GPUs, got {text}", exit_code=2
        )
    return gpu, count


def _given(value: object) -> bool:
    """Say whether an option was typed; 0 was, a flag that is off was not."""
    return value is not None and value is not False


def _regroup(spread: Parallelism, groups: int) -> Parallelism:
    from dataclasses import replace  # noqa: PLC0415

    from engine.parallelism import ProfileRefused  # noqa: PLC0415

    if groups < 1 or spread.tp % groups:
        raise ProfileRefused(f"--attention-dp: {spread.tp} GPUs cannot make {groups} groups")
    return replace(spread, attention_dp=groups, dense_dp=groups > 1, head_dp=groups > 1)


def _host() -> Gpu:
    """Return this machine's memory as what the model is put into."""
    import os  # noqa: PLC0415

    from engine.published.tables import Gpu  # noqa: PLC0415

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Gpu("cpu", memory, fp8=False, fixed=False)


def _length(text: str) -> int:
    match = _LENGTH.fullmatch(text)
    tokens = int(match[1]) * _UNITS[match[2].lower()] if match else 0
    if tokens < 1:
        raise StartupError(f"--context: expected tokens such as 8192 or 128k, got {text!r}", exit_code=2)
    return tokens


def _check(profile: Profile | None, model: str) -> None:
    from engine.profile_check import check_in_subprocess  # noqa: PLC0415

    if profile is None:
        raise StartupError("--check: there is no profile to check; name one with --profile", exit_code=2)
    check_in_subprocess(profile, model)
